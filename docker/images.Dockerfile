# An image for each program, from the packages that `make deb` has built for the same release of Debian: `make images`.
# Context: the folder of the packages.
ARG DEBIAN=bookworm

FROM debian:${DEBIAN}-slim AS tools
ARG VERSION REVISION
LABEL org.opencontainers.image.title="vipa-tools" \
      org.opencontainers.image.description="Command line of Vipa: makes certificates, asks routers and gives them orders" \
      org.opencontainers.image.licenses="Apache-2.0 OR MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY vipa-tools_*.deb /packages/
RUN apt-get update \
 && apt-get install -y --no-install-recommends /packages/vipa-tools_*.deb \
 && rm -rf /var/lib/apt/lists/* /packages \
 && useradd --system --no-create-home vipa-tools
USER vipa-tools
ENTRYPOINT ["vipactl"]
CMD ["--help"]

FROM debian:${DEBIAN}-slim AS router
ARG VERSION REVISION
LABEL org.opencontainers.image.title="vipa-router" \
      org.opencontainers.image.description="Router for virtual IP addresses that outlive it" \
      org.opencontainers.image.licenses="Apache-2.0 OR MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY vipa-router_*.deb vipa-tools_*.deb /packages/
# The capabilities are the program's own, so that it needs no root to have them. Only what `docker run --cap-add` gives is there at all.
RUN apt-get update \
 && apt-get install -y --no-install-recommends systemd-standalone-sysusers libcap2-bin \
 && apt-get install -y --no-install-recommends /packages/*.deb \
 && setcap cap_net_admin,cap_net_raw,cap_ipc_lock=ep /usr/bin/vipad \
 && apt-get purge -y --auto-remove libcap2-bin \
 && rm -rf /var/lib/apt/lists/* /packages \
 && install -d -m 700 -o vipa-router -g vipa-router /var/lib/vipad \
 && install -d -m 750 -o vipa-router -g vipa-router /run/vipad
USER vipa-router
# DPDK keeps its files there.
ENV RUNTIME_DIRECTORY=/run/vipad
VOLUME /var/lib/vipad
HEALTHCHECK --interval=10s --timeout=12s --start-period=30s CMD vipactl status >/dev/null || exit 1
STOPSIGNAL SIGTERM
ENTRYPOINT ["vipad"]
CMD ["--config", "/etc/vipa/router.toml"]

FROM debian:${DEBIAN}-slim AS agent
ARG VERSION REVISION
LABEL org.opencontainers.image.title="vipa-agent" \
      org.opencontainers.image.description="Target agent of Vipa: tells the routers which connections a host holds" \
      org.opencontainers.image.licenses="Apache-2.0 OR MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY vipa-agent_*.deb /packages/
RUN apt-get update \
 && apt-get install -y --no-install-recommends systemd-standalone-sysusers libcap2-bin \
 && apt-get install -y --no-install-recommends /packages/*.deb \
 && setcap cap_net_admin,cap_bpf=ep /usr/bin/vipa-agent \
 && apt-get purge -y --auto-remove libcap2-bin \
 && rm -rf /var/lib/apt/lists/* /packages \
 && install -d -m 700 -o vipa-agent -g vipa-agent /var/lib/vipa-agent \
 && install -d -m 750 -o vipa-agent -g vipa-agent /run/vipa-agent
USER vipa-agent
VOLUME /var/lib/vipa-agent
HEALTHCHECK --interval=10s --timeout=12s --start-period=30s CMD vipa-agent status --config /etc/vipa/agent.toml >/dev/null || exit 1
STOPSIGNAL SIGTERM
ENTRYPOINT ["vipa-agent"]
CMD ["--config", "/etc/vipa/agent.toml"]
