package v1alpha1

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// ProbeType says how a probe asks.
// +kubebuilder:validation:Enum=HTTP;TCP;Exec
type ProbeType string

const (
	// ProbeHTTP gets a path from a port: 200 to 399 is well.
	ProbeHTTP ProbeType = "HTTP"
	// ProbeTCP connects to a port.
	ProbeTCP ProbeType = "TCP"
	// ProbeExec runs a command in the container: exit code 0 is well.
	ProbeExec ProbeType = "Exec"
)

// Probe asks a container how it is.
//
// +kubebuilder:validation:XValidation:rule="!has(self.path) || self.path.matches('^/[!-~]*$')",message="must begin with / and hold no space (the value is not repeated here)",fieldPath=".path"
// +kubebuilder:validation:XValidation:rule="has(self.port) == (!has(self.type) || self.type != 'Exec')",message="must be set for a probe of type HTTP or TCP, and only then: a name in ports",fieldPath=".port"
// +kubebuilder:validation:XValidation:rule="!has(self.path) || !has(self.type) || self.type == 'HTTP'",message="must be left out unless the probe's type is HTTP",fieldPath=".path"
// +kubebuilder:validation:XValidation:rule="has(self.command) == (has(self.type) && self.type == 'Exec')",message="must be set for a probe of type Exec, and only then: the program and its arguments",fieldPath=".command"
// +kubebuilder:validation:XValidation:rule="!has(self.command) || self.command.all(c, c.matches('^[^\\x00]*$'))",message="must not hold the character NUL (the values are not repeated here)",messageExpression="'command[%d] must not hold the character NUL (the value is not repeated here)'.format([self.command.map(c, c.matches('^[^\\x00]*$')).indexOf(false)])",fieldPath=".command"
// +kubebuilder:validation:XValidation:rule="!has(self.host)",message="Pod Security restricted, which a Tenant's namespaces enforce, has no probe ask another host. Leave this out: a probe asks the container that it belongs to",reason=FieldValueForbidden,fieldPath=".host"
type Probe struct {
	// type of the probe. Defaults to HTTP.
	// +optional
	Type ProbeType `json:"type,omitempty"`

	// path to GET, for HTTP. Defaults to /.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	Path string `json:"path,omitempty"`

	// port is the name of an entry of the container's ports, for HTTP and TCP.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=15
	Port string `json:"port,omitempty"`

	// command is what is run in the container, for Exec: a program of the image and its arguments, without a shell.
	// $(VAR) is not expanded. What it takes counts as the container's.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=8
	// +kubebuilder:validation:items:MaxLength=1024
	Command []string `json:"command,omitempty"`

	// initialDelaySeconds between the container's start and the first ask. Defaults to 0.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=3600
	InitialDelaySeconds int32 `json:"initialDelaySeconds,omitempty"`

	// timeoutSeconds that an answer may take. Defaults to 5.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=300
	TimeoutSeconds int32 `json:"timeoutSeconds,omitempty"`

	// periodSeconds between two asks. Defaults to 10.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=3600
	PeriodSeconds int32 `json:"periodSeconds,omitempty"`

	// failureThreshold is how many failed asks in a row count. Defaults to 3.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=60
	FailureThreshold int32 `json:"failureThreshold,omitempty"`

	// host is refused: a probe asks its own container.
	// +optional
	// +kubebuilder:validation:Schemaless
	// +kubebuilder:validation:Type=string
	Host *Refused `json:"host,omitempty"`
}

// Probes of a container.
type Probes struct {
	// startup holds the other two back until it has succeeded once.
	// +optional
	Startup *Probe `json:"startup,omitempty"`
	// liveness restarts the container when it fails.
	// +optional
	Liveness *Probe `json:"liveness,omitempty"`
	// readiness makes the bot Ready.
	// +optional
	Readiness *Probe `json:"readiness,omitempty"`
}

// ScratchMedium says where a scratch directory lies.
// +kubebuilder:validation:Enum=Disk;Memory
type ScratchMedium string

const (
	// ScratchDisk is the node's disk.
	ScratchDisk ScratchMedium = "Disk"
	// ScratchMemory is memory. What is in it counts against the container's limit.
	ScratchMemory ScratchMedium = "Memory"
)

// BotScratch is a directory that the bot can write to, and that goes with its pod.
//
// +kubebuilder:validation:XValidation:rule="self.path.matches('^(/[-A-Za-z0-9._+@~]+)+$') && !self.path.matches('/[.][.]?(/|$)')",message="must be an absolute path without . and .. and without a slash at its end",fieldPath=".path"
// +kubebuilder:validation:XValidation:rule="self.path == '/dev/shm' || !((self.path + '/').matches('^/(proc|sys|dev|run|var/run|etc/hosts|etc/hostname|etc/resolv[.]conf)/') || self.path in ['/etc', '/var'])",message="is Kubernetes' or Lethe's own, or holds what is: choose another path, for example /cache",fieldPath=".path"
// +kubebuilder:validation:XValidation:rule="!has(self.size) || [quantity(string(self.size))].all(q, q.isGreaterThan(quantity('0')) && !q.isGreaterThan(quantity('64Ti')) && q.isInteger())",message="must be a whole number of bytes, more than 0 and at most 64Ti",fieldPath=".size"
type BotScratch struct {
	// path in the container: an absolute path that is not the system's, as storage.mountPath; /dev/shm may be one.
	// +required
	// +kubebuilder:validation:MinLength=2
	// +kubebuilder:validation:MaxLength=256
	Path string `json:"path,omitempty"`

	// size of the directory. A pod that fills it up on Disk is ended and made anew; in Memory writing fails. Defaults
	// to 1Gi on Disk and to 64Mi in Memory.
	// +optional
	Size resource.Quantity `json:"size,omitzero"`

	// medium is Disk or Memory. Defaults to Disk. What lies in Memory counts against the container's memory limit.
	// +optional
	Medium ScratchMedium `json:"medium,omitempty"`
}

// ConfigMapKeyRef names a key of a ConfigMap in the bot's namespace.
//
// +kubebuilder:validation:XValidation:rule="self.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')",message="must be the name of a ConfigMap (the value is not repeated here)",fieldPath=".name"
// +kubebuilder:validation:XValidation:rule="self.key.matches('^[-._a-zA-Z0-9]+$') && !self.key.matches('^[.]([.].*)?$')",message="must be a key of a ConfigMap: letters, digits, dashes, dots and underscores (the value is not repeated here)",fieldPath=".key"
type ConfigMapKeyRef struct {
	// name of the ConfigMap.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name,omitempty"`

	// key in its data. What is in binaryData cannot be had.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Key string `json:"key,omitempty"`
}

// BotFile is a file that the bot finds in its container and cannot change.
//
// +kubebuilder:validation:XValidation:rule="has(self.content) != has(self.configMapKeyRef)",message="set exactly one of content and configMapKeyRef"
// +kubebuilder:validation:XValidation:rule="!has(self.content) || self.content.matches('^[^\\x00]*$')",message="must not hold the character NUL (the value is not repeated here)",fieldPath=".content"
// +kubebuilder:validation:XValidation:rule="self.path.matches('^(/[-A-Za-z0-9._+@~]+)+$') && !self.path.matches('/[.][.]?(/|$)')",message="must be an absolute path without . and .. and without a slash at its end",fieldPath=".path"
// +kubebuilder:validation:XValidation:rule="!((self.path + '/').matches('^/(proc|sys|dev|run|var/run|etc/hosts|etc/hostname|etc/resolv[.]conf)/') || self.path in ['/etc', '/var', '/tmp'])",message="is Kubernetes' or Lethe's own, or holds what is: choose another path, for example /etc/bot/config.yaml",fieldPath=".path"
type BotFile struct {
	// path of the file in the container: an absolute path that is not the system's (/proc, /sys, /dev, /run,
	// /var/run) and lies in no scratch directory and not in the bot's storage.
	// +required
	// +kubebuilder:validation:MinLength=2
	// +kubebuilder:validation:MaxLength=256
	Path string `json:"path,omitempty"`

	// content of the file. ${credential:NAME} is replaced by the value of that entry of spec.credentials, in the
	// pod's memory: what is written here is plain text, and no secret. $${credential: stands for ${credential:
	// itself; nothing else is replaced.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=65536
	Content string `json:"content,omitempty"`

	// configMapKeyRef takes the content from a ConfigMap in the bot's namespace that names the bot in its annotation
	// lethe.dev/file-for. It is read again every five minutes; another content is a new revision.
	// +optional
	ConfigMapKeyRef *ConfigMapKeyRef `json:"configMapKeyRef,omitempty"`
}

// HelperMount is something of the bot's that a helper shares.
// +kubebuilder:validation:Enum=Scratch;Storage
type HelperMount string

const (
	// MountScratch are the directories of spec.scratch, at the same paths.
	MountScratch HelperMount = "Scratch"
	// MountStorage is the bot's volume, at the same path.
	MountStorage HelperMount = "Storage"
)

// BotHelper is a container that runs beside the bot's own, in its pod: behind the same walls, as the same user, and
// reachable for it at localhost.
//
// +kubebuilder:validation:XValidation:rule="self.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$') && !(self.name in ['bot', 'unseal'])",message="must be lower-case letters, digits and dashes, and neither bot nor unseal (the value is not repeated here)",fieldPath=".name"
// +kubebuilder:validation:XValidation:rule="self.image.matches('^(([A-Za-z0-9]([-A-Za-z0-9]*[A-Za-z0-9])?([.][A-Za-z0-9]([-A-Za-z0-9]*[A-Za-z0-9])?)*|[[][0-9a-fA-F:]+[]])(:[0-9]+)?/)?[a-z0-9]+(([._]|__|-+)[a-z0-9]+)*(/[a-z0-9]+(([._]|__|-+)[a-z0-9]+)*)*(:[A-Za-z0-9_][-A-Za-z0-9_.]{0,127})?(@(sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128}))?$') && !self.image.matches('^[0-9a-f]{64}$') && self.image.find('^([^/]*/)?[^:@]*').size() <= 255",message="must be the name of an image such as registry.example/bot:v1 (the value is not repeated here)",messageExpression="self.image.contains('://') ? 'must be the name of an image such as registry.example/bot:v1: leave out the scheme, all that stands before the registry (the value is not repeated here)' : self.image.matches('^[^[:space:]]*[[:space:]]') ? 'must be the name of an image such as registry.example/bot:v1, without spaces and line breaks (the value is not repeated here)' : self.image.find('^([^/]*/)?[^:@]*').size() > 255 ? 'must be the name of an image such as registry.example/bot:v1 with at most 255 characters before tag and digest (the value is not repeated here)' : self.image.matches('^([^/]*/)?[^:@]*[A-Z]') ? 'must be the name of an image such as registry.example/bot:v1, with a repository in lower case (the value is not repeated here)' : 'must be the name of an image such as registry.example/bot:v1, with a tag or a whole digest (sha256: and 64 digits in lower case) where there is one (the value is not repeated here)'",fieldPath=".image"
// +kubebuilder:validation:XValidation:rule="!has(self.command) || self.command.all(c, c.matches('^[^\\x00]*$'))",message="must not hold the character NUL (the values are not repeated here)",messageExpression="'command[%d] must not hold the character NUL (the value is not repeated here)'.format([self.command.map(c, c.matches('^[^\\x00]*$')).indexOf(false)])",fieldPath=".command"
// +kubebuilder:validation:XValidation:rule="!has(self.args) || self.args.all(c, c.matches('^[^\\x00]*$'))",message="must not hold the character NUL (the values are not repeated here)",messageExpression="'args[%d] must not hold the character NUL (the value is not repeated here)'.format([self.args.map(c, c.matches('^[^\\x00]*$')).indexOf(false)])",fieldPath=".args"
// +kubebuilder:validation:XValidation:rule="!has(self.probes) || !has(self.probes.startup) || !has(self.probes.startup.port) || (has(self.ports) && self.ports.exists(q, q.name == self.probes.startup.port))",message="must name an entry of the helper's ports",fieldPath=".probes.startup.port"
// +kubebuilder:validation:XValidation:rule="!has(self.probes) || !has(self.probes.liveness) || !has(self.probes.liveness.port) || (has(self.ports) && self.ports.exists(q, q.name == self.probes.liveness.port))",message="must name an entry of the helper's ports",fieldPath=".probes.liveness.port"
// +kubebuilder:validation:XValidation:rule="!has(self.probes) || !has(self.probes.readiness) || !has(self.probes.readiness.port) || (has(self.ports) && self.ports.exists(q, q.name == self.probes.readiness.port))",message="must name an entry of the helper's ports",fieldPath=".probes.readiness.port"
// +kubebuilder:validation:XValidation:rule="!has(self.securityContext)",message="Pod Security restricted, which a Tenant's namespaces enforce, leaves no choice of privileges, so that Lethe makes it. Leave this out: containers run as the Tenant's user id, without capabilities, and where one must write is an entry of spec.scratch, or spec.storage",reason=FieldValueForbidden,fieldPath=".securityContext"
// +kubebuilder:validation:XValidation:rule="!has(self.lifecycle)",message="Pod Security restricted, which a Tenant's namespaces enforce, lets no hook call another host, and Lethe runs none. Leave this out: what prepares goes into the program's own start, and a container that is to end gets SIGTERM and spec.rollout.terminationGracePeriodSeconds",reason=FieldValueForbidden,fieldPath=".lifecycle"
type BotHelper struct {
	// name of the container.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=40
	Name string `json:"name,omitempty"`

	// image of the helper.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	Image string `json:"image,omitempty"`

	// imagePullPolicy of the image. Left out, Kubernetes' own default for the image's tag applies.
	// +optional
	// +kubebuilder:validation:Enum=Always;IfNotPresent;Never
	ImagePullPolicy corev1.PullPolicy `json:"imagePullPolicy,omitempty"`

	// command replaces the image's entry point. $(VAR) is not expanded.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MaxLength=1024
	Command []string `json:"command,omitempty"`

	// args replace the image's arguments. $(VAR) is not expanded. No secrets here.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MaxLength=1024
	Args []string `json:"args,omitempty"`

	// env are plain variables. HOME and TMPDIR, where they are not among them, name directories that the helper can
	// write to.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=32
	Env []EnvVar `json:"env,omitempty"`

	// ports the helper listens on. No number is there twice in a pod: its containers share one network.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=4
	Ports []ContainerPort `json:"ports,omitempty"`

	// probes of the helper. A bot is Ready when its helpers are.
	// +optional
	Probes *Probes `json:"probes,omitempty"`

	// resources of the helper. Left out, as for the bot's own container. They count in the Tenant's quota.
	// +optional
	Resources *BotResources `json:"resources,omitempty"`

	// credentials are the entries of spec.credentials that the helper gets too. Left out, it gets none.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=8
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=63
	Credentials []string `json:"credentials,omitempty"`

	// mounts are what of the bot's the helper shares. Left out, it shares nothing: files of spec.files are never
	// shared.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=2
	Mounts []HelperMount `json:"mounts,omitempty"`

	// securityContext is refused: Lethe makes it.
	// +optional
	SecurityContext *Refused `json:"securityContext,omitempty"`

	// lifecycle is refused: a helper has no hooks.
	// +optional
	Lifecycle *Refused `json:"lifecycle,omitempty"`
}
