"""An application under the second name that is looked for."""
from tests.python.probe import application as app
