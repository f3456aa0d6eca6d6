"""Start the Studio with the demo bank: `python app.py`."""

import sys

from lmoe_studio.errors import LMoEError
from lmoe_studio.ui.app import launch

if __name__ == "__main__":
    try:
        launch()
    except LMoEError as error:
        sys.exit(str(error))
