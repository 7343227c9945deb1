"""Django in one file, with its admin. `application` is for WSGI, `asgi_application` for ASGI.

The database is a file in a temporary folder. It is made here, with one user: admin, password.
"""
import json
import os
import tempfile

from django.conf import settings

FOLDER = os.environ.get("GLASSHOUSE_DJANGO") or tempfile.mkdtemp(prefix="glasshouse-django-")

if not settings.configured:
    settings.configure(
        DEBUG=False,
        SECRET_KEY="only for tests",
        ALLOWED_HOSTS=["*"],
        ROOT_URLCONF=__name__,
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.path.join(FOLDER, "db.sqlite3")}},
        INSTALLED_APPS=[
            "django.contrib.admin",
            "django.contrib.auth",
            "django.contrib.contenttypes",
            "django.contrib.sessions",
            "django.contrib.messages",
        ],
        MIDDLEWARE=[
            "django.middleware.security.SecurityMiddleware",
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.middleware.common.CommonMiddleware",
            "django.middleware.csrf.CsrfViewMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
            "django.contrib.messages.middleware.MessageMiddleware",
        ],
        TEMPLATES=[{
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "APP_DIRS": True,
            "OPTIONS": {"context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]},
        }],
        PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
        STATIC_URL="/static/",
        USE_TZ=True,
        LOGGING_CONFIG=None,
    )

import django  # noqa: E402

django.setup()

from django.contrib import admin  # noqa: E402
from django.core.asgi import get_asgi_application  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.http import FileResponse, HttpResponse, JsonResponse, StreamingHttpResponse  # noqa: E402
from django.urls import path  # noqa: E402
from django.views.decorators.csrf import csrf_exempt  # noqa: E402


def hello(request, name):
    return HttpResponse(f"Hello, {name}!\n")


@csrf_exempt
def upload(request):
    file = request.FILES["file"]
    return JsonResponse({"name": file.name, "size": file.size})


@csrf_exempt
def sums(request):
    return JsonResponse({"sum": sum(json.loads(request.body))})


def stream(request):
    return StreamingHttpResponse(f"line {number}\n" for number in range(1000))


def file(request):
    return FileResponse(open(__file__, "rb"))


urlpatterns = [
    path("admin/", admin.site.urls),
    path("hello/<str:name>/", hello),
    path("upload/", upload),
    path("sums/", sums),
    path("stream/", stream),
    path("file/", file),
]


def make_database():
    call_command("migrate", verbosity=0)
    from django.contrib.auth.models import User

    if not User.objects.filter(username="admin").exists():
        User.objects.create_superuser("admin", "admin@example.org", "password")


make_database()
application = get_wsgi_application()
asgi_application = get_asgi_application()
