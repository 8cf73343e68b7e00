"""Images brought to an encoder's size."""

import numpy as np
import pytest
from PIL import Image

from medsae_plugin.encoders.preprocessing import Preprocessor


@pytest.mark.parametrize("fit", ["pad", "crop", "stretch"])
@pytest.mark.parametrize("resize", [None, 70])
@pytest.mark.parametrize("shape", [(100, 80), (33, 90), (300, 200)])
def test_grey_is_fitted_as_each_of_three_like_channels_is(fit, resize, shape):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))
    preprocessor = Preprocessor("RGB", 64, fit, "bicubic", (0.5,) * 3, (0.5,) * 3, resize)
    np.testing.assert_array_equal(preprocessor.to_array(image), preprocessor.to_array(image.convert("RGB")))
