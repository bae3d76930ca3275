# `face2vec serve` in a container: see docs/guides/serve.md. Nothing here depends on the
# architecture; all packages have wheels for amd64 and arm64.
ARG PYTHON=3.13

FROM python:${PYTHON}-slim AS build
ARG EXTRAS=server,people,raw,jxl,video,watch,mcp
WORKDIR /source
COPY setup.py pyproject.toml README.md LICENSE LICENSE-mini2 MANIFEST.in ./
COPY scripts/image-install scripts/
COPY face2vec face2vec/
RUN scripts/image-install /opt/face2vec "$EXTRAS"

FROM python:${PYTHON}-slim
LABEL org.opencontainers.image.title="face2vec" \
    org.opencontainers.image.description="Find a face again in a photo collection" \
    org.opencontainers.image.licenses="MIT AND CC-BY-NC-SA-4.0" \
    org.opencontainers.image.source="https://github.com/face2vec/face2vec"
COPY --from=build /opt/face2vec /opt/face2vec
# Models that are downloaded stay beside the galleries; nothing else is written outside of /tmp.
ENV PATH=/opt/face2vec/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp \
    FACE2VEC_CACHE=/indexes/.cache
RUN install -d -o 1000 -g 1000 /indexes /photos
WORKDIR /indexes
VOLUME ["/photos", "/indexes"]
USER 1000:1000
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=10s --start-period=30s \
    CMD ["python", "-c", "from http.client import HTTPConnection as C; c = C('127.0.0.1', 8000, timeout=5); c.request('GET', '/healthz'); raise SystemExit(c.getresponse().status != 200)"]
ENTRYPOINT ["face2vec"]
CMD ["serve", "/indexes/main", "--host", "0.0.0.0", "--root", "/photos", "--no-browser", "--token-file", "/run/secrets/face2vec_token"]
