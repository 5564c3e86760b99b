# The images that `cargo xtask images` makes, for who has Docker or buildah:
#   docker build --target webhook  --tag localhost/tokenscope-webhook:0.1.0  .
#   docker build --target operator --tag localhost/tokenscope-operator:0.1.0 .
FROM rust:1-bookworm AS build
WORKDIR /src
COPY . .
# As in xtask/src/images.rs: glibc goes into the programs, so that nothing else has to be in the image.
RUN for program in tokenscope-operator tokenscope-webhook; do \
      cargo rustc --locked --profile dist --package "$program" --bin "$program" -- \
        -C target-feature=+crt-static -C strip=symbols && \
      install -D -m 755 "target/dist/$program" "/images/$program" || exit 1; \
    done

FROM scratch AS operator
LABEL org.opencontainers.image.title=tokenscope-operator \
      org.opencontainers.image.version=0.1.0 \
      org.opencontainers.image.licenses=Apache-2.0
COPY --from=build /images/tokenscope-operator /tokenscope-operator
USER 65532:65532
ENTRYPOINT ["/tokenscope-operator"]

FROM scratch AS webhook
LABEL org.opencontainers.image.title=tokenscope-webhook \
      org.opencontainers.image.version=0.1.0 \
      org.opencontainers.image.licenses=Apache-2.0
COPY --from=build /images/tokenscope-webhook /tokenscope-webhook
USER 65532:65532
ENTRYPOINT ["/tokenscope-webhook"]
