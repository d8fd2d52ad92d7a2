# The same image from programs that are built already, for quick tries:
#
#   docker build -f compose/prebuilt.Dockerfile -t confman DIR
#
# DIR holds `confman`, `drtool` and compose/root.sh. A file of its own, because without BuildKit every stage before the one asked for
# is built, and that would compile everything.
ARG BUILDER_IMAGE=docker.io/library/rust:1.95-slim-bookworm@sha256:d7482085ff5b415f84dba5647ae71606650bdef00db7aeb69f4b3d170c3e4082

FROM ${BUILDER_IMAGE} AS builder
COPY confman drtool /programs/
COPY root.sh /root.sh
RUN sh /root.sh /programs /out

# From here on the same as in Dockerfile; a test compares them.
FROM scratch AS confman
COPY --from=builder /out /
# A number, so that an orchestrator can see that it is not root.
USER 10001:10001
WORKDIR /var/lib/confman
ENV CONFMAN_DATA_DIR=/var/lib/confman/data
VOLUME ["/var/lib/confman"]
EXPOSE 6100 6101
HEALTHCHECK --interval=5s --timeout=3s --start-period=10s --retries=3 CMD ["/usr/local/bin/confman", "health"]
# The node stops gracefully on SIGTERM: it hands leadership over and leaves within ten seconds.
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/confman"]
CMD ["serve"]
