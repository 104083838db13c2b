"""The *restricted* level of the Pod Security Standards (v1.37), as a judgement of one pod.

A pod is refused for the first field that the level forbids; all of them are told. The level holds what *baseline* forbids, too.
Rules that Linux alone knows are not asked of a pod that says it is for Windows. What may be judged per container or for the
whole pod (user, seccomp) is asked of the container first: a container's word overrides the pod's. The cases that the public
conformance fixtures have are all decided as they say (tests/deploy/test_pod_security.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from flux_devkit.manifests.documents import Document, Finding, Pod, name_of, of_kind

Spec = Mapping[str, Any]

VOLUMES: Final = {
    *("configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"),
}
SYSCTLS: Final = {
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_notsent_lowat",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_slow_start_after_idle",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
}
SELINUX_TYPES: Final = {"", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"}
SECCOMP: Final = {"RuntimeDefault", "Localhost"}
APPARMOR_ANNOTATION: Final = "container.apparmor.security.beta.kubernetes.io/"
HANDLERS: Final = (
    *(("livenessProbe",), ("readinessProbe",), ("startupProbe",)),
    *(("lifecycle", "postStart"), ("lifecycle", "preStop")),
)


def findings(pod: Pod, annotations: Mapping[str, str] | None = None) -> Iterator[Finding]:
    """Yield everything that the restricted level forbids in a pod."""
    for judge in POD_RULES:
        yield from (Finding(pod.where, what) for what in judge(pod.spec))
    for what in _apparmor_annotations(annotations or {}):
        yield Finding(pod.where, what)
    for container in pod.containers():
        for rule in CONTAINER_RULES:
            yield from (Finding(pod.where, f"{container['name']}: {what}") for what in rule(container, pod.spec))


def operated(documents: Iterable[Document]) -> Iterator[Pod]:
    """Yield the pods that Strimzi will make, as far as its templates say what they are: node pools and the entity operator."""
    listed = list(documents)
    for pool in of_kind(listed, "KafkaNodePool"):
        yield _templated(name_of(pool), pool["spec"].get("template", {}), "kafkaContainer")
    for kafka in of_kind(listed, "Kafka"):
        template = kafka["spec"].get("entityOperator", {}).get("template", {})
        yield _templated(
            f"{name_of(kafka)} entityOperator", template, "topicOperatorContainer", "userOperatorContainer"
        )


def _templated(where: str, template: Spec, *containers: str) -> Pod:
    made = [{"name": name, "securityContext": _context(template.get(name) or {})} for name in containers]
    return Pod(where, {}, {"securityContext": _context(template.get("pod") or {}), "containers": made})


def _context(holder: Spec) -> Spec:
    return holder.get("securityContext") or {}


def _for_windows(spec: Spec) -> bool:
    return bool((spec.get("os") or {}).get("name") == "windows")


# Rules of the pod.


def _host_namespaces(spec: Spec) -> Iterator[str]:
    yield from (f"{name} is shared" for name in ("hostNetwork", "hostPID", "hostIPC") if spec.get(name))


def _volumes(spec: Spec) -> Iterator[str]:
    for volume in spec.get("volumes") or []:
        yield from (f"volume {volume['name']} is of kind {kind}" for kind in volume if kind not in {"name", *VOLUMES})


def _sysctls(spec: Spec) -> Iterator[str]:
    for sysctl in _context(spec).get("sysctls") or []:
        if sysctl["name"] not in SYSCTLS:
            yield f"sysctl {sysctl['name']} is not a safe one"


def _apparmor_annotations(annotations: Mapping[str, str]) -> Iterator[str]:
    for name, value in annotations.items():
        if name.startswith(APPARMOR_ANNOTATION) and not (
            value in ("", "runtime/default") or value.startswith("localhost/")
        ):
            yield f"AppArmor is {value} for {name.removeprefix(APPARMOR_ANNOTATION)}"


def _pod_wide(spec: Spec) -> Iterator[str]:
    context = _context(spec)
    if context.get("runAsUser") == 0:
        yield "runs as user 0"
    yield from _wrong_profiles(context)
    yield from _wrong_selinux(context)
    if (context.get("windowsOptions") or {}).get("hostProcess"):
        yield "is a host process"


def _wrong_profiles(context: Spec) -> Iterator[str]:
    seccomp, apparmor = context.get("seccompProfile") or {}, context.get("appArmorProfile") or {}
    if seccomp and seccomp.get("type") not in SECCOMP:
        yield f"seccomp profile is {seccomp.get('type')}"
    if apparmor and apparmor.get("type") not in {"RuntimeDefault", "Localhost"}:
        yield f"AppArmor profile is {apparmor.get('type')}"


def _wrong_selinux(context: Spec) -> Iterator[str]:
    options = context.get("seLinuxOptions") or {}
    if options.get("type", "") not in SELINUX_TYPES:
        yield f"SELinux type is {options['type']}"
    yield from (f"SELinux {name} is set" for name in ("user", "role") if options.get(name))


# Rules of a container; some ask the pod where the container is silent.


def _own(container: Spec, _spec: Spec) -> Iterator[str]:
    context = _context(container)
    if context.get("privileged"):
        yield "is privileged"
    if context.get("runAsUser") == 0:
        yield "runs as user 0"
    if context.get("procMount") not in (None, "Default"):
        yield f"mounts {context['procMount']} proc"
    if (context.get("windowsOptions") or {}).get("hostProcess"):
        yield "is a host process"
    yield from _wrong_profiles(context)
    yield from _wrong_selinux(context)


def _ports(container: Spec, _spec: Spec) -> Iterator[str]:
    yield from (
        f"takes port {port['hostPort']} of the host" for port in container.get("ports") or [] if port.get("hostPort")
    )


def _handlers(container: Spec, _spec: Spec) -> Iterator[str]:
    for path in HANDLERS:
        handler: Spec = container
        for part in path:
            handler = handler.get(part) or {}
        for action in ("httpGet", "tcpSocket"):
            if (handler.get(action) or {}).get("host"):
                yield f"{'.'.join(path)} asks the host {handler[action]['host']}"


def _escalation(container: Spec, spec: Spec) -> Iterator[str]:
    if not _for_windows(spec) and _context(container).get("allowPrivilegeEscalation") is not False:
        yield "may gain privileges"


def _capabilities(container: Spec, spec: Spec) -> Iterator[str]:
    capabilities = _context(container).get("capabilities") or {}
    added = set(capabilities.get("add") or [])
    if added - {"NET_BIND_SERVICE"}:
        yield f"adds capabilities {sorted(added - {'NET_BIND_SERVICE'})}"
    if not _for_windows(spec) and "ALL" not in (capabilities.get("drop") or []):
        yield "keeps capabilities"


def _non_root(container: Spec, spec: Spec) -> Iterator[str]:
    said = _context(container).get("runAsNonRoot", _context(spec).get("runAsNonRoot"))
    if said is not True:
        yield "may run as root"


def _seccomp(container: Spec, spec: Spec) -> Iterator[str]:
    said = _context(container).get("seccompProfile") or _context(spec).get("seccompProfile")
    if not said and not _for_windows(spec):
        yield "has no seccomp profile"


POD_RULES: Final[tuple[Callable[[Spec], Iterator[str]], ...]] = (_host_namespaces, _volumes, _sysctls, _pod_wide)
CONTAINER_RULES: Final[tuple[Callable[[Spec, Spec], Iterator[str]], ...]] = (
    *(_own, _ports, _handlers, _escalation, _capabilities, _non_root, _seccomp),
)
