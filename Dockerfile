# The images that `cargo xtask images` makes, for who has Docker or buildah; add --target issuer, operator, sidecar,
# sidecar-endpoint, sidecar-issuer or webhook:
#   docker build --target webhook --tag localhost/tokenscope-webhook:0.1.0 .
FROM rust:1-bookworm AS build
WORKDIR /src
COPY . .
# Each archive has one layer, and that has one program.
RUN cargo xtask images && mkdir /images && \
    for archive in target/images/*.tar; do \
      image=/images/$(basename "$archive" .tar) && mkdir "$image" && \
      layer=$(tar -xOf "$archive" manifest.json | sed 's/.*"Layers":\["\([^"]*\)".*/\1/') && \
      tar -xOf "$archive" "$layer" | tar -xC "$image" || exit 1; \
    done

FROM scratch AS issuer
LABEL org.opencontainers.image.title=tokenscope-issuer \
      org.opencontainers.image.version=0.1.0 \
      org.opencontainers.image.licenses=Apache-2.0
COPY --from=build /images/tokenscope-issuer/tokenscope-issuer /tokenscope-issuer
USER 65532:65532
ENTRYPOINT ["/tokenscope-issuer"]

FROM scratch AS operator
LABEL org.opencontainers.image.title=tokenscope-operator \
      org.opencontainers.image.version=0.1.0 \
      org.opencontainers.image.licenses=Apache-2.0
COPY --from=build /images/tokenscope-operator/tokenscope-operator /tokenscope-operator
USER 65532:65532
ENTRYPOINT ["/tokenscope-operator"]

FROM scratch AS sidecar
LABEL org.opencontainers.image.title=tokenscope-sidecar \
      org.opencontainers.image.version=0.1.0 \
      org.opencontainers.image.licenses=Apache-2.0
COPY --from=build /images/tokenscope-sidecar/tokenscope-sidecar /tokenscope-sidecar
USER 65532:65532
ENTRYPOINT ["/tokenscope-sidecar"]

FROM scratch AS sidecar-endpoint
LABEL org.opencontainers.image.title=tokenscope-sidecar-endpoint \
      org.opencontainers.image.version=0.1.0 \
      org.opencontainers.image.licenses=Apache-2.0
COPY --from=build /images/tokenscope-sidecar-endpoint/tokenscope-sidecar /tokenscope-sidecar
USER 65532:65532
ENTRYPOINT ["/tokenscope-sidecar"]

FROM scratch AS sidecar-issuer
LABEL org.opencontainers.image.title=tokenscope-sidecar-issuer \
      org.opencontainers.image.version=0.1.0 \
      org.opencontainers.image.licenses=Apache-2.0
COPY --from=build /images/tokenscope-sidecar-issuer/tokenscope-sidecar /tokenscope-sidecar
USER 65532:65532
ENTRYPOINT ["/tokenscope-sidecar"]

FROM scratch AS webhook
LABEL org.opencontainers.image.title=tokenscope-webhook \
      org.opencontainers.image.version=0.1.0 \
      org.opencontainers.image.licenses=Apache-2.0
COPY --from=build /images/tokenscope-webhook/tokenscope-webhook /tokenscope-webhook
USER 65532:65532
ENTRYPOINT ["/tokenscope-webhook"]
