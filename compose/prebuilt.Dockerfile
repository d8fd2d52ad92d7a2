# The same image from programs that are built already, for quick tries:
#
#   docker build -f compose/prebuilt.Dockerfile -t confman DIR
#
# DIR holds `confman`, `drtool` and compose/root.sh. A file of its own, because without BuildKit every stage before the one asked for
# is built, and that would compile everything.
ARG BUILDER_IMAGE=docker.io/library/rust:1.95-slim-bookworm

FROM ${BUILDER_IMAGE} AS builder
COPY confman drtool /out/usr/local/bin/
COPY root.sh /root.sh
RUN sh /root.sh /out

FROM scratch AS confman
COPY --from=builder /out /
USER 10001:10001
WORKDIR /var/lib/confman
ENV CONFMAN_DATA_DIR=/var/lib/confman/data
VOLUME ["/var/lib/confman"]
EXPOSE 6100 6101
HEALTHCHECK --interval=5s --timeout=3s --start-period=10s --retries=3 CMD ["/usr/local/bin/confman", "health"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/confman"]
CMD ["serve"]
