package fields

import (
	"reflect"
	"strings"

	"github.com/lethe-dev/lethe/api/v1alpha1"
)

const (
	nul     = "a\x00b"
	newline = "a\nb"
	escape  = "a\x1b[2Jb"
	bidi    = "a\u202eb"
	dots    = "../x"
)

func long(n int) string { return strings.Repeat("a", n+1) }

// names of one label, of a subdomain, of a variable, of something in a catalogue.
func label(more ...any) []any {
	return append([]any{"", "A", "-a", "a-", "a_b", "a b", "a/b", dots, newline, escape, bidi, nul, long(63)}, more...)
}

func identifier() []any {
	return []any{"", "1a", "a b", `a"b`, "a;b", "a.b", "a'b", "a--b", newline, escape, bidi, nul, long(63)}
}

func class() []any { return []any{"", "a", "A b", "A-b", newline, escape, "A\n", long(63)} }

func number(low, high int64) []any { return []any{low - 1, high + 1, -1, "x", 1.5} }

func quantity(more ...any) []any { return append([]any{"", "x", "-1", "-1Gi", "1e400x"}, more...) }

func prose() []any { return []any{"", newline, escape, nul, long(256)} }

func cidr(more ...any) []any {
	return append([]any{"", "x", "8.8.8.8", "8.8.8.8/33", "::/129", "8.8.8/24", "::ffff:8.8.8.8/128", "::ffff:0:0/96", "fe80::1%eth0/64", "0x8.8.8.8/32", "169.254.169.254/32",
		"127.0.0.1/32", "2001::/32", "::8.8.8.8/128", "2002:808:808::/48", "64:ff9b::a9fe:a9fe/128", "fe80::/64", "0.0.0.0/32", "::1/128", "fd00:ec2::254/128", long(43)}, more...)
}

// mountPaths are where nothing may be mounted.
func mountPaths() []any {
	return []any{"", "/", "data", "/c/", "//c", "/c//x", "/c/./x", "/c/../var/run/lethe", "/..", "/c/..", "/a:b", "/a b", "/proc", "/proc/1", "/sys", "/sys/fs", "/dev",
		"/etc", "/etc/hosts", "/etc/resolv.conf", "/etc/hostname", "/var", "/var/run", "/var/run/lethe/home", "/var/run/lethe/credentials", "/var/run/secrets/kubernetes.io/serviceaccount", "/run", "/run/lethe", "/a\x00", "/a\n", long(256)}
}

func word() []any { return []any{"x", "", 7} } // for an enum

func period(prefix string, into map[string][]any) {
	for unit, high := range map[string]int64{"hours": 876000, "days": 36500, "weeks": 5200, "months": 1200, "years": 100} {
		into[prefix+"."+unit] = number(1, high)
	}
}

func kinds() map[string]kind {
	bot := kind{spec: reflect.TypeFor[v1alpha1.BotDeploymentSpec](), object: botObject, hostile: map[string][]any{
		"image":                          {"", "a b", "-a", newline, escape, nul, "a;b", "$(x)", "https://user:pw@r.example/b", "r.example/b@latest", long(512)},
		"imagePullPolicy":                word(),
		"imagePullSecrets[].name":        {"", "A", "a/b", "a..b", dots, "a_b", newline, nul, long(253)},
		"podAnnotations":                 {map[string]any{}, map[string]any{"a b": "c"}, map[string]any{"": "a"}, map[string]any{"a/b/c": "d"}, map[string]any{"a": long(1024)}, map[string]any{"lethe.dev/credentials": "x"}, map[string]any{"a": 7}},
		"command[]":                      {nul, long(1024), 7},
		"args[]":                         {nul, long(1024), 7},
		"env[].name":                     {"", "1a", "a-b", "a b", "a=b", newline, nul, long(128)},
		"env[].value":                    {nul, 7, long(32768)},
		"ports[].name":                   label("1", "a--b", long(15)),
		"ports[].containerPort":          number(1024, 65535),
		"channels[].name":                label(),
		"channels[].type":                word(),
		"channels[].telegram.credential": {"", "nobody", long(63)},
		"channels[].telegram.apiURL": {"", "api.telegram.org", "http://api.telegram.org", "HTTPS//x", "https://", "https://user:pw@x.example", "https://x.example?a", "https://x.example#a", "https://x.example/a b", "ftp://x",
			"https://localhost", "https://a.localhost:8443/", "https://127.0.0.1", "https://127.1", "https://2130706433", "https://0x7f000001", "https://0177.0.0.1", "https://169.254.169.254/latest", "https://[::1]",
			"https://[::ffff:169.254.169.254]", "https://[64:ff9b::a9fe:a9fe]", "https://[fd00:ec2::254]", "https://[fe80::1]", "https://[2002:a9fe:a9fe::1]", "https://0.0.0.0", "https://x.example\n", "https://x.example:99999999", long(253)},
		"credentials[].name":              {"", "A", "-a", "a..b", ".a", "a.", "a/b", dots, newline, nul, long(63)},
		"credentials[].sealed":            {"plain", "seal.v2.a.b.c.d.e", "seal.v1.a", "seal.v1.a.b.c.d.e\n", long(92160)},
		"credentials[].secretKeyRef.name": {"", "A", "a/b", "a..b", dots, "..", ".", "a_b", newline, nul, long(253)},
		"credentials[].secretKeyRef.key":  {"", "a/b", dots, "..", ".", "..a", "a b", newline, nul, long(253)},
		"credentials[].delivery":          word(),
		"credentials[].envName":           {"", "1a", "a-b", "a b", newline, nul, long(128)},
		"egress[].cidr":                   cidr("10.0.0.0/8", "10.1.0.0/16", "192.168.1.0/24", "203.0.113.0/24", "fc00::/7", "fec0::/10", "2001:db8::/32", "2001:10::/28", "ff02::/16", "100::/64", "64:ff9b::808:808/128", "240.0.0.0/8"),
		"egress[].ports[].protocol":       word(),
		"egress[].ports[].port":           number(1, 65535),
		"storage.size":                    quantity("0", "0Gi", 0, -1, "500m", "65Ti", "1Ei"),
		"storage.storageClassName":        {"", "A", "a_b", dots, newline, nul, long(253)},
		"storage.mountPath": {"", "/", "data", "/data/", "//data", "/data//x", "/data/./x", "/data/../var/run/lethe", "/..", "/data/..", "/a:b", "/a b", "/proc", "/proc/1", "/sys", "/sys/fs", "/dev", "/dev/shm",
			"/etc", "/etc/hosts", "/etc/resolv.conf", "/etc/hostname", "/var", "/var/run", "/var/run/lethe", "/var/run/lethe/credentials", "/var/run/secrets/kubernetes.io/serviceaccount", "/run", "/run/lethe", "/a\x00", "/a\n", long(256)},
		"storage.reclaimPolicy":                 word(),
		"storage.claim.existing":                {"", "A", "a_b", dots, newline, nul, long(253)},
		"rollout.terminationGracePeriodSeconds": number(1, 600),
		"rollout.progressDeadlineSeconds":       number(10, 3600),
		"operatingMode":                         word(),
		"timeZone":                              {"", "a b", "../etc/passwd", "a//b", "Europe/", "Europe/Brelin", newline, nul, long(64)},
		"restartedAt":                           {"", "x", "yesterday", 0},
		"scratch[].path":                        mountPaths(),
		"scratch[].size":                        quantity("0", "0Gi", 0, -1, "500m", "65Ti", "1Ei"),
		"scratch[].medium":                      word(),
		"files[].path":                          append([]any{"/tmp", "/dev/shm"}, mountPaths()...),
		"files[].content":                       {nul, 7, long(65536)},
		"files[].configMapKeyRef.name":          {"", "A", "a/b", "a..b", dots, "..", ".", "a_b", newline, nul, long(253)},
		"files[].configMapKeyRef.key":           {"", "a/b", dots, "..", ".", "..a", "a b", newline, nul, long(253)},
		"helpers[].name":                        label("bot", "unseal", long(40)),
		"helpers[].image":                       {"", "docker://bot", "r.example/Bot", "a b", "-a", newline, escape, nul, "a;b", "$(x)", "https://user:pw@r.example/b", "r.example/b@latest", long(512)},
		"helpers[].imagePullPolicy":             word(),
		"helpers[].command[]":                   {nul, long(1024), 7},
		"helpers[].args[]":                      {nul, long(1024), 7},
		"helpers[].env[].name":                  {"", "1a", "a-b", "a b", "a=b", newline, nul, long(128)},
		"helpers[].env[].value":                 {nul, 7, long(32768)},
		"helpers[].ports[].name":                label("1", "a--b", long(15)),
		"helpers[].ports[].containerPort":       number(1024, 65535),
		"helpers[].credentials[]":               {"", long(63)},
		"helpers[].mounts[]":                    word(),
	}}
	for _, of := range []string{"probes.", "helpers[].probes."} {
		for _, probe := range []string{of + "startup", of + "liveness", of + "readiness"} {
			bot.hostile[probe+".type"] = word()
			bot.hostile[probe+".path"] = []any{"", "x", "/a b", "/a\r\nHost: x", "/\x00", "/" + long(256)}
			bot.hostile[probe+".port"] = []any{"", "nobody", 8080, long(15)}
			bot.hostile[probe+".command[]"] = []any{nul, long(1024), "/check"} // of HTTP, which has none
			bot.hostile[probe+".initialDelaySeconds"] = number(0, 3600)
			bot.hostile[probe+".timeoutSeconds"] = number(1, 300)
			bot.hostile[probe+".periodSeconds"] = number(1, 3600)
			bot.hostile[probe+".failureThreshold"] = number(1, 60)
		}
	}
	for _, side := range []string{"resources.requests", "resources.limits", "helpers[].resources.requests", "helpers[].resources.limits"} {
		bot.hostile[side] = []any{
			map[string]any{"nvidia.com/gpu": "1"}, map[string]any{"hugepages-2Mi": "2Mi"}, map[string]any{"pods": "1"}, map[string]any{"storage": "1Gi"}, map[string]any{"": "1"},
			map[string]any{"cpu": "0"}, map[string]any{"cpu": "-1"}, map[string]any{"memory": "-1Gi"}, map[string]any{"memory": "x"}, map[string]any{"cpu": "1M"}, map[string]any{"memory": "1Ei"},
			map[string]any{"ephemeral-storage": "0"},
		}
	}
	refusals(bot.hostile)
	bot.hostile["helpers[].resources.requests"] = append(bot.hostile["helpers[].resources.requests"], map[string]any{"cpu": "2"})
	bot.hostile["resources.requests"] = append(bot.hostile["resources.requests"], map[string]any{"cpu": "2"}) // more than the limit

	store := kind{spec: reflect.TypeFor[v1alpha1.DataStoreSpec](), object: storeObject, hostile: map[string][]any{
		"type":                                           word(),
		"postgres.host":                                  {"", "a b", "db.example:5432", "postgresql://u@h/d", "u@h", "-a", "a/b", "127.0.0.1", "::1", "[::1]", "169.254.169.254", "::ffff:10.0.0.1", "fe80::1", "fe80::1%eth0", newline, nul, long(253)},
		"postgres.port":                                  number(1, 65535),
		"postgres.database":                              {"", "a/b", "postgres://x", "dbname=x", "a?b", " a", newline, escape, nul, long(63)},
		"postgres.caBundle":                              {"hello", "-----BEGIN PRIVATE KEY-----\nx", long(8192)},
		"postgres.username":                              {"", "a:b", "user=x", "a/b", " a", newline, escape, nul, long(63)},
		"postgres.password":                              {"", "plain", "seal.v2.a.b.c.d.e", long(92160)},
		"tenancy":                                        {"x", ""},
		"tenantIDType":                                   class(),
		"datasets[].name":                                label(),
		"datasets[].dataClass":                           class(),
		"datasets[].table.schema":                        identifier(),
		"datasets[].table.name":                          identifier(),
		"datasets[].table.key[]":                         identifier(),
		"datasets[].table.ageColumn.name":                identifier(),
		"datasets[].table.ageColumn.type":                word(),
		"datasets[].table.ageColumn.timeZone":            {"", "a b", "../etc/passwd", "a//b", newline, nul, long(64)},
		"datasets[].table.tenantColumn":                  identifier(),
		"datasets[].floor.legalBasis":                    prose(),
		"exempt[].schema":                                identifier(),
		"exempt[].table":                                 identifier(),
		"exempt[].reason":                                prose(),
		"relations[].schema":                             identifier(),
		"relations[].table":                              identifier(),
		"relations[].column":                             identifier(),
		"relations[].references":                         label(),
		"relations[].referencesColumn":                   identifier(),
		"relations[].state":                              word(),
		"relations[].reason":                             prose(),
		"brake.maxPercentOfTable":                        number(1, 100),
		"approvedPlan.identity.kind":                     {"", "x", "A b", "A-1", newline, nul, long(64)},
		"approvedPlan.identity.value":                    {"", "-1", "a b", "a/b", newline, nul, long(128)},
		"approvedPlan.database":                          {"", "a/b", "postgres://x", newline, nul, long(63)},
		"approvedPlan.tenancy":                           word(),
		"approvedPlan.windows[].dataset":                 label(),
		"approvedPlan.windows[].placeDigest":             {"", "x", "A", newline, long(64)},
		"approvedPlan.windows[].backlog.rows":            {0, -1, "x", 1.5},
		"approvedPlan.windows[].backlog.approvedAt":      {"", "x", 0},
		"approvedPlan.windows[].backlog.until":           {"", "x", 0, "2026-11-01T00:00:00Z", "2027-12-01T00:00:00Z"},
		"approvedPlan.address":                           {"", "x", "x:", ":1", "a b:1", "user@x:1", "x:1/d", newline, nul, long(261)},
		"approvedPlan.seen.point.kind":                   {"", "x", "A b", "A-1", newline, nul, long(64)},
		"approvedPlan.seen.point.value":                  {"", "-1", "a b", "a;b", newline, nul, long(256)},
		"approvedPlan.seen.approvedAt":                   {"", "x", 0},
		"approvedPlan.windows[].tenants[].tenant":        {"", "A", "a b", dots, newline, nul, long(63)},
		"approvedPlan.windows[].tenants[].externalIDs[]": {"", long(128)}, // compared with Tenants' own, which are refused
	}}
	period("datasets[].floor.retainFor", store.hostile)
	period("approvedPlan.windows[].retainFor", store.hostile)
	period("approvedPlan.windows[].floor", store.hostile)
	period("approvedPlan.windows[].anyTenant.notBelow", store.hostile)
	period("approvedPlan.windows[].tenants[].retainFor", store.hostile)

	tenant := kind{spec: reflect.TypeFor[v1alpha1.TenantSpec](), object: tenantObject, hostile: map[string][]any{
		"class":                                        word(),
		"state":                                        word(),
		"userNamespaces":                               word(),
		"namespaces[].name":                            label(),
		"externalIDs[].type":                           class(),
		"externalIDs[].value":                          {"", newline, escape, nul, long(128)},
		"quota.pods":                                   number(0, 3000),
		"quota.bots":                                   number(0, 1000),
		"quota.stores":                                 number(0, 200),
		"retainedVolumes":                              word(),
		"egressCeiling.allow[].cidr":                   {"", "x", "8.8.8.8", "8.8.8.8/33", "::/129", long(43)},
		"egressCeiling.allow[].ports[].protocol":       word(),
		"egressCeiling.allow[].ports[].port":           number(1, 65535),
		"egressCeiling.allow[].ports[].endPort":        append(number(1, 65535), 442),
		"foreignNetworkPolicies[].group":               {"A", "a/b", "-a", newline, nul, long(253)},
		"foreignNetworkPolicies[].resource":            {"A", "a/b", "a1", newline, nul, long(63)},
		"foreignNetworkPolicies[].name":                {"", "A", "a/b", "-a", newline, nul, long(253)},
		"foreignObjects[].kind":                        word(),
		"foreignObjects[].name":                        {"", "A", "a/b", "-a", newline, nul, long(253)},
		"quota.cpu":                                    quantity("0", 0, "1Mi", "1M"),
		"quota.memory":                                 quantity("0", 0, "1Ei"),
		"quota.storage":                                quantity("2Ei"),
		"placement.nodeSelector":                       {map[string]any{}, map[string]any{"a b": "c"}, map[string]any{"a": "b c"}, map[string]any{"": "a"}, map[string]any{"a/b/c": "d"}, map[string]any{"a": long(63)}, map[string]any{"a": newline}},
		"placement.tolerations[].key":                  {"", "a b", "/a", "a/", "a/b/c", dots, newline, nul, long(253)},
		"placement.tolerations[].operator":             word(),
		"placement.tolerations[].value":                {"a b", "-a", "a/b", newline, nul, long(63)},
		"placement.tolerations[].effect":               word(),
		"placement.tolerations[].tolerationSeconds":    number(0, 604800),
		"placement.runtimeClassName":                   {"", "A", "a_b", dots, newline, nul, long(253)},
		"placement.priorityClassName":                  {"", "A", "a_b", dots, newline, nul, long(253), "system-node-critical", "system-cluster-critical", "lethe-sweeper", "lethe-system"},
		"placement.topologySpread[].topologyKey":       {"", "a b", "/a", "a/", "a/b/c", dots, newline, nul, long(253)},
		"placement.topologySpread[].maxSkew":           number(1, 100),
		"placement.topologySpread[].whenUnsatisfiable": word(),
		"imagePullSecrets[].name":                      {"", "A", "a/b", "a..b", dots, "a_b", newline, nul, long(253)},
		"egress[].cidr":                                cidr(),
		"egress[].ports[].protocol":                    word(),
		"egress[].ports[].port":                        number(1, 65535),
		"access[].group":                               {"", " a", "a ", newline, escape, nul, long(253)},
		"access[].role":                                word(),
		"retentionOverrides[].dataClass":               class(),
		"quota.ephemeralStorage":                       quantity("0", "3Gi", "65Ti"),
	}}
	period("retentionOverrides[].retainFor", tenant.hostile)
	affinities(tenant.hostile)

	policy := kind{spec: reflect.TypeFor[v1alpha1.DataRetentionPolicySpec](), object: policyObject, hostile: map[string][]any{
		"mode":                             word(),
		"rules[].name":                     label(),
		"rules[].dataClass":                class(),
		"rules[].basis":                    word(),
		"rules[].action":                   word(),
		"rules[].deleteWithin.minutes":     append(number(1, 525600), 1, 5, 59), // a store is swept once in an hour
		"rules[].deleteWithin.hours":       number(1, 8760),
		"rules[].deleteWithin.days":        number(1, 365),
		"rules[].tenantOverrides[].tenant": {"", "A", "a b", dots, newline, nul, long(63)},
	}}
	period("rules[].retainFor", policy.hostile)
	period("rules[].tenantOverrides[].retainFor", policy.hostile)
	return map[string]kind{"BotDeployment": bot, "DataStore": store, "Tenant": tenant, "DataRetentionPolicy": policy}
}

const botObject = `
apiVersion: lethe.dev/v1alpha1
kind: BotDeployment
metadata: {name: fields, namespace: default}
spec:
  image: registry.example/bot:v1
  imagePullSecrets: [{name: regcred}]
  podAnnotations: {example.com/team: support}
  command: [/bot]
  args: [--polling]
  env: [{name: A, value: b}]
  ports: [{name: health, containerPort: 8080}, {name: other, containerPort: 8081}]
  probes: {startup: {path: /, port: other}, liveness: {path: /, port: other}, readiness: {path: /, port: other}}
  scratch: [{path: /cache, size: 1Gi, medium: Disk}]
  files: [{path: /etc/bot.more, configMapKeyRef: {name: config, key: more}}, {path: /etc/bot.conf, content: "token: ${credential:token}"}]
  timeZone: Europe/Berlin
  restartedAt: "2026-11-26T09:30:00Z"
  helpers:
  - name: helper
    image: registry.example/helper:v1
    command: [/helper]
    args: [--port=9090]
    env: [{name: B, value: c}]
    ports: [{name: web, containerPort: 9090}, {name: other, containerPort: 9091}]
    probes: {startup: {path: /, port: other}, liveness: {path: /, port: other}, readiness: {path: /, port: other}}
    resources: {requests: {cpu: 50m}, limits: {cpu: "1", memory: 128Mi}}
    credentials: [token]
    mounts: [Scratch, Storage]
  resources: {requests: {cpu: 50m}, limits: {cpu: "1", memory: 128Mi}}
  channels: [{name: main, type: Telegram, telegram: {credential: token, apiURL: "https://api.telegram.org"}}]
  credentials:
  - {name: legacy, secretKeyRef: {name: legacy, key: token}, delivery: Env, envName: LEGACY}
  - {name: token, sealed: seal.v1.a.b.c.d.e}
  egress: [{cidr: 140.82.112.0/20, ports: [{port: 443}]}]
  storage: {size: 1Gi, storageClassName: fast, mountPath: /data, claim: {existing: data}}
  rollout: {terminationGracePeriodSeconds: 30}
`

const storeObject = `
apiVersion: lethe.dev/v1alpha1
kind: DataStore
metadata: {name: fields, namespace: default}
spec:
  type: Postgres
  tenancy: Shared
  tenantIDType: AccountID
  postgres:
    host: db.example
    port: 5432
    database: app
    username: lethe
    password: seal.v1.a.b.c.d.e
    caBundle: |
      -----BEGIN CERTIFICATE-----
      MIIB
      -----END CERTIFICATE-----
  datasets:
  - name: messages
    dataClass: Messages
    table: {schema: public, name: messages, key: [id], ageColumn: {name: created_at, type: Timestamp, timeZone: Etc/UTC}, tenantColumn: account_id}
    floor: {retainFor: {days: 1}, legalBasis: a law}
  exempt: [{schema: public, table: settings, reason: no personal data}]
  relations: [{schema: public, table: files, column: message_id, references: messages, referencesColumn: id, state: Declared, reason: the product looks it up}]
  brake: {maxPercentOfTable: 20}
  approvedPlan:
    identity: {kind: PostgresSystemIdentifier, value: "7000000000000000000"}
    database: app
    tenancy: Shared
    address: db.example:5432
    seen: {point: {kind: PostgresPoint, value: "oid=16384,timeline=1,position=0/16B3748,transactions=740"}, approvedAt: "2026-11-24T00:00:00Z"}
    windows:
    - {dataset: messages, placeDigest: abcdef0123, retainFor: {days: 90}, floor: {days: 1}, anyTenant: {notBelow: {days: 40}}, backlog: {rows: 5, approvedAt: "2026-11-24T00:00:00Z", until: "2026-12-01T00:00:00Z"}, tenants: [{tenant: acme, retainFor: {days: 30}, externalIDs: ["1"]}]}
`

const tenantObject = `
apiVersion: lethe.dev/v1alpha1
kind: Tenant
metadata: {name: fields}
spec:
  namespaces: [{name: fields-bots}]
  externalIDs: [{type: AccountID, value: "1"}]
  quota: {pods: 5, cpu: "4", memory: 8Gi, storage: 10Gi, ephemeralStorage: 30Gi}
  placement:
    nodeSelector: {a: b}
    tolerations: [{key: example.com/pool, operator: Equal, value: bots, effect: NoExecute, tolerationSeconds: 60}]
    runtimeClassName: gvisor
    priorityClassName: customers
    topologySpread: [{topologyKey: topology.kubernetes.io/zone, maxSkew: 1, whenUnsatisfiable: ScheduleAnyway}]
    affinity:
      nodeAffinity:
        requiredDuringSchedulingIgnoredDuringExecution:
          nodeSelectorTerms: [{matchExpressions: [{key: example.com/disk, operator: In, values: [fast]}]}]
        preferredDuringSchedulingIgnoredDuringExecution:
        - {weight: 1, preference: {matchExpressions: [{key: example.com/disk, operator: In, values: [fast]}]}}
      podAffinity: &pods
        requiredDuringSchedulingIgnoredDuringExecution:
        - {topologyKey: topology.kubernetes.io/zone, labelSelector: {matchExpressions: [{key: app, operator: In, values: [cache]}]}}
        preferredDuringSchedulingIgnoredDuringExecution:
        - {weight: 1, podAffinityTerm: {topologyKey: topology.kubernetes.io/zone, labelSelector: {matchExpressions: [{key: app, operator: In, values: [cache]}]}}}
      podAntiAffinity: *pods
  imagePullSecrets: [{name: regcred}]
  egress: [{cidr: 10.20.0.0/16, ports: [{port: 5432}]}]
  egressCeiling: {allow: [{cidr: 8.8.8.0/24, ports: [{port: 443, endPort: 443}]}]}
  foreignNetworkPolicies: [{group: cilium.io, resource: ciliumnetworkpolicies, name: theirs}]
  foreignObjects: [{kind: Service, name: theirs}]
  access: [{group: "acme:ops", role: View}]
  retentionOverrides: [{dataClass: Messages, retainFor: {days: 30}}]
`

const policyObject = `
apiVersion: lethe.dev/v1alpha1
kind: DataRetentionPolicy
metadata: {name: fields}
spec:
  storeSelector: {matchLabels: {a: b}}
  rules:
  - name: messages
    dataClass: Messages
    retainFor: {days: 90}
    deleteWithin: {hours: 24}
    tenantOverrides: [{tenant: acme, retainFor: {days: 30}}]
`
