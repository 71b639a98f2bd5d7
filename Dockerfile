# Clearmargin as an image. Build and use of it are told in docs/install.md.
#
#   docker build --tag clearmargin .
#
# Wheels come from the package index that pip is set up with. The default build of torch for Linux brings CUDA along;
# for the much smaller CPU build give the index that offers it:
#
#   docker build --tag clearmargin --build-arg PIP_EXTRA_INDEX_URL=ADDRESS .

ARG PYTHON_VERSION=3.11

FROM python:${PYTHON_VERSION}-slim AS build

# Read by pip itself; empty ones are left alone. EXTRAS is a list as in pip: backbones,tracking
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG EXTRAS=
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_CONSTRAINT=/source/constraints.txt

RUN python -m venv /opt/clearmargin
ENV PATH=/opt/clearmargin/bin:${PATH}
WORKDIR /source

# What takes long comes first: it changes only with these two files.
COPY constraints.txt pyproject.toml ./
RUN python -c "import sys, tomllib; project = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
chosen = [name.strip() for name in sys.argv[1].split(',') if name.strip()]; \
print(*project['dependencies'], *(each for name in chosen for each in project['optional-dependencies'][name]), sep='\n')" \
    "${EXTRAS}" > /tmp/requirements.txt \
    && pip install --requirement /tmp/requirements.txt

COPY README.md LICENSE ./
COPY src ./src
RUN pip install --no-deps .

FROM python:${PYTHON_VERSION}-slim

LABEL org.opencontainers.image.title="Clearmargin" \
      org.opencontainers.image.description="Trains, checks and runs classifiers of breast images. For research and education; not a medical device." \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.vendor="The Clearmargin authors"

RUN groupadd --gid 10001 clearmargin \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /data --shell /usr/sbin/nologin clearmargin \
    && install --directory --owner=10001 --group=10001 --mode=0750 /data

COPY --from=build /opt/clearmargin /opt/clearmargin

# All that is written goes to /data or /tmp, so that the root may be read-only (--read-only --tmpfs /tmp).
ENV PATH=/opt/clearmargin/bin:${PATH} \
    HOME=/data \
    CLEARMARGIN_CACHE=/data/cache \
    MPLCONFIGDIR=/tmp/matplotlib \
    XDG_CACHE_HOME=/data/cache \
    XDG_CONFIG_HOME=/data/config \
    XDG_STATE_HOME=/data/state \
    LANG=C.UTF-8 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1

USER 10001:10001
WORKDIR /data
VOLUME ["/data"]
EXPOSE 8000

# Other commands than serve are healthy as long as they run. With another --port, switch it off: --no-healthcheck
HEALTHCHECK --interval=30s --timeout=6s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import pathlib, urllib.request; 'serve' in pathlib.Path('/proc/1/cmdline').read_text().split('\\0') and urllib.request.urlopen('http://127.0.0.1:8000/api/v1/health', timeout=4)"]

ENTRYPOINT ["clearmargin"]
CMD ["--help"]
