"""An application that leaves a thread behind, so that its process does not end by itself."""
import threading

from tests.python.hello import application

threading.Thread(target=threading.Event().wait).start()
