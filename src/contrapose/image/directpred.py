from contrapose.image._dynamics import linear_dynamics
from contrapose.image._predictor import Correlation, byol_loss, deviation, eigenspace_alignment, predictor_weights
