"""A Django project in one file, by ASGI: the admin site, and a group chat with Channels."""

import json
import os
import sys
import tempfile

import django
from django.conf import settings

FOLDER = tempfile.TemporaryDirectory()
settings.configure(
    SECRET_KEY="only for tests",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": os.path.join(FOLDER.name, "db.sqlite3"),
        }
    },
    INSTALLED_APPS=[
        "django.contrib.admin",
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.messages",
        "django.contrib.sessions",
    ],
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
    ],
    TEMPLATES=[
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "APP_DIRS": True,
            "OPTIONS": {
                "context_processors": [
                    "django.template.context_processors.request",
                    "django.contrib.auth.context_processors.auth",
                    "django.contrib.messages.context_processors.messages",
                ]
            },
        }
    ],
    CHANNEL_LAYERS={"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}},
    STATIC_URL="/static/",
    USE_TZ=True,
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
)
django.setup()

from django.contrib import admin
from django.contrib.auth import get_user_model
from django.core.asgi import get_asgi_application
from django.core.management import call_command
from django.http import HttpResponse
from django.urls import path


def hello(request):
    return HttpResponse(f"{request.scheme} {request.get_host()} {request.path}\n")


urlpatterns = [path("admin/", admin.site.urls), path("hello/", hello)]


def prepare():
    # Another event loop runs here, and Django would rather not wait for its database there.
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "1"
    call_command("migrate", verbosity=0)
    get_user_model().objects.create_superuser("ada", "ada@example.org", "lovelace")
    del os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"]


prepare()
application = get_asgi_application()

try:
    from channels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
    from channels.routing import ProtocolTypeRouter, URLRouter
except ImportError:
    print("there is no channels here", file=sys.stderr)
else:

    class Chat(AsyncWebsocketConsumer):
        async def connect(self):
            self.room = self.scope["url_route"]["kwargs"]["room"]
            if self.room == "closed":
                return await self.close()
            await self.channel_layer.group_add(self.room, self.channel_name)
            await self.accept()

        async def disconnect(self, code):
            event = {"type": "said", "text": f"somebody has left: {code}"}
            await self.channel_layer.group_discard(self.room, self.channel_name)
            await self.channel_layer.group_send(self.room, event)

        async def receive(self, text_data=None, bytes_data=None):
            text = json.loads(text_data)["text"]
            await self.channel_layer.group_send(self.room, {"type": "said", "text": text})

        async def said(self, event):
            await self.send(text_data=json.dumps({"text": event["text"]}))

    class Shout(WebsocketConsumer):
        """Not async: each of its methods runs on another thread."""

        def receive(self, text_data=None, bytes_data=None):
            self.send(text_data=text_data.upper())

    rooms = [path("ws/chat/<str:room>/", Chat.as_asgi()), path("ws/shout/", Shout.as_asgi())]
    channels = ProtocolTypeRouter({"http": application, "websocket": URLRouter(rooms)})
