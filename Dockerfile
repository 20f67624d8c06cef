# syntax=docker/dockerfile:1
# build: compiles the wheel.  final: installs it, without compiler, as nobody in particular.
FROM python:3.11-slim-bookworm AS build
RUN apt-get update -qq && apt-get install -qq -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY pyproject.toml setup.py README.md LICENSE ./
COPY outpost outpost
RUN pip wheel --no-cache-dir --wheel-dir /wheels .

FROM python:3.11-slim-bookworm
RUN --mount=type=bind,from=build,source=/wheels,target=/wheels \
    pip install --no-cache-dir --no-index --find-links=/wheels outpost \
    && useradd --system --uid 1000 --no-create-home --shell /usr/sbin/nologin outpost
USER 1000:1000
ENV PYTHONUNBUFFERED=1
EXPOSE 3389/tcp 6636/tcp 1812/udp 9300/tcp
HEALTHCHECK --interval=5s --timeout=3s --start-period=10s --retries=3 CMD ["outpost", "healthcheck"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["outpost"]
CMD ["run"]
