"""How far off a prediction may be: residuals of the model against measurements, and intervals drawn from them."""
