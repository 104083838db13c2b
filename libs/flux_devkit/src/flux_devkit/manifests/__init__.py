"""The manifests of deploy/k8s: rendered, generated from the code, and judged without a cluster.

Theory. A manifest repeats what the code knows: topics, groups, settings, metrics, ports, limits. What can be written from the
code is generated (`generated`); everything else is compared with it. A check is a pure function from rendered documents to
findings, so that it can be shown to find what it is for: tests plant each mistake and see it found by one check alone.

| part | knows |
|---|---|
| `documents` | what a rendered document is, and which pods it makes |
| `rendering` | how kustomize is called |
| `generated` | what is written from catalogue, registry and rules |
| `schemas`, `rules_of_kinds` | Kubernetes' schemas, the operators' schemas, and what a schema cannot say |
| `pod_security` | the restricted level of the Pod Security Standards |
| `network` | who can reach whom |
| `wiring` | selectors, secrets, configuration: what refers to what |
| `brokers` | topics, logins, grants, quotas, replication, groups: as they would be generated, whatever an overlay patches |
| `agreement`, `alerts` | Kafka partitions, settings, connections, metrics, runbooks: what the code knows too |
| `hygiene` | no rights, no literal secrets, images, bounds of pods |
| `checks` | all of them, by name |
"""
