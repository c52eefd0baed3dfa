package v1alpha1

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// OperatingMode says whether a bot runs.
// +kubebuilder:validation:Enum=Running;Suspended
type OperatingMode string

const (
	// ModeRunning runs the bot.
	ModeRunning OperatingMode = "Running"
	// ModeSuspended stops the pod and keeps everything else, the volume included.
	ModeSuspended OperatingMode = "Suspended"
)

// CredentialDelivery says how a credential reaches the bot.
// +kubebuilder:validation:Enum=File;Env
type CredentialDelivery string

const (
	// DeliveryFile puts the value in a file in memory, /var/run/lethe/credentials/<name>.
	DeliveryFile CredentialDelivery = "File"
	// DeliveryEnv puts it in an environment variable. Container runtimes write those to the node's disk.
	DeliveryEnv CredentialDelivery = "Env"
)

// ChannelType says which messenger a channel speaks to.
// +kubebuilder:validation:Enum=Telegram
type ChannelType string

// ChannelTelegram is the Telegram Bot API.
const ChannelTelegram ChannelType = "Telegram"

// TelegramChannel is a bot on Telegram that fetches its updates by long polling. Telegram answers one consumer at a
// time, so at most one pod of the bot holds the token.
//
// +kubebuilder:validation:XValidation:rule="!has(self.apiURL) || self.apiURL.matches('^https://([A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?|\\\\[[0-9a-fA-F:.]+\\\\])(:[0-9]{1,5})?(/[-A-Za-z0-9._~/]*)?$')",message="must be https://host, with a port and a path where needed, and nothing else: the token travels in the path of each request, so http is refused (the value is not repeated here)",fieldPath=".apiURL"
type TelegramChannel struct {
	// credential names the entry of spec.credentials that holds the bot's token. The container finds the path of the
	// file in TELEGRAM_BOT_TOKEN_FILE.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Credential string `json:"credential,omitempty"`

	// apiURL is the Bot API server to use, over https, handed to the container as TELEGRAM_API_URL. Left out, it is
	// Telegram's own, and Telegram's published address ranges are opened on port 443; set, nothing is opened for it
	// (spec.egress or the Tenant's egress does that).
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	APIURL string `json:"apiURL,omitempty"`
}

// Channel is one messenger that the bot talks through.
//
// +kubebuilder:validation:XValidation:rule="(self.type == 'Telegram') == has(self.telegram)",message="telegram must be set when type is Telegram, and only then"
// +kubebuilder:validation:XValidation:rule="self.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",message="must be lower-case letters, digits and dashes (the value is not repeated here)",fieldPath=".name"
type Channel struct {
	// name of the channel, unique in the bot.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Name string `json:"name,omitempty"`

	// type of the channel.
	// +required
	Type ChannelType `json:"type,omitempty"`

	// telegram is set when type is Telegram.
	// +optional
	Telegram *TelegramChannel `json:"telegram,omitempty"`
}

// SecretKeyRef names a key of a Secret in the bot's namespace.
//
// +kubebuilder:validation:XValidation:rule="self.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')",message="must be the name of a Secret (the value is not repeated here)",fieldPath=".name"
// +kubebuilder:validation:XValidation:rule="self.key.matches('^[-._a-zA-Z0-9]+$') && !self.key.matches('^[.]([.].*)?$')",message="must be a key of a Secret: letters, digits, dashes, dots and underscores (the value is not repeated here)",fieldPath=".key"
type SecretKeyRef struct {
	// name of the Secret.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name,omitempty"`

	// key in the Secret.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Key string `json:"key,omitempty"`
}

// Credential is one secret value that the bot needs.
//
// +kubebuilder:validation:XValidation:rule="has(self.sealed) != has(self.secretKeyRef)",message="set exactly one of sealed and secretKeyRef"
// +kubebuilder:validation:XValidation:rule="!has(self.sealed) || self.sealed.matches('^seal[.]v1([.][A-Za-z0-9_-]+){5}$')",message="not a sealed value: run 'kubectl lethe seal' and paste its output, which begins with seal.v1 (the value is not repeated here)",fieldPath=".sealed"
// +kubebuilder:validation:XValidation:rule="(has(self.delivery) && self.delivery == 'Env') == has(self.envName)",message="envName must be set when delivery is Env, and only then"
// +kubebuilder:validation:XValidation:rule="self.name.matches('^[a-z0-9]([-a-z0-9_.]*[a-z0-9])?$') && !self.name.contains('..')",message="must be lower-case letters, digits, dashes, dots and underscores (the value is not repeated here)",fieldPath=".name"
// +kubebuilder:validation:XValidation:rule="!has(self.envName) || self.envName.matches('^[A-Za-z_][A-Za-z0-9_]*$')",message="must be letters, digits and underscores, no digit first (the value is not repeated here)",fieldPath=".envName"
type Credential struct {
	// name of the credential: the file's name, and the key that a value is sealed for.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Name string `json:"name,omitempty"`

	// sealed is the output of `kubectl lethe seal` for this bot and this name.
	// +optional
	Sealed SealedValue `json:"sealed,omitempty"`

	// secretKeyRef takes the value from a Secret in the bot's namespace that names the bot in its annotation
	// lethe.dev/credential-for. The plaintext then stands in etcd through that Secret, which the condition
	// CredentialsReady says; prefer sealed.
	// +optional
	SecretKeyRef *SecretKeyRef `json:"secretKeyRef,omitempty"`

	// delivery of the value. Defaults to File. Env is for images that read nothing else: the container runtime writes
	// the value to the node's disk, so erasing it there cannot be claimed. It needs kubelet 1.35 or newer on every
	// node the bot may run on.
	// +optional
	Delivery CredentialDelivery `json:"delivery,omitempty"`

	// envName is the environment variable, for delivery Env.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	EnvName string `json:"envName,omitempty"`
}

// EnvVar is a plain environment variable. Secrets belong in credentials.
//
// +kubebuilder:validation:XValidation:rule="self.name.matches('^[A-Za-z_][A-Za-z0-9_]*$')",message="must be letters, digits and underscores, no digit first (the value is not repeated here)",fieldPath=".name"
// +kubebuilder:validation:XValidation:rule="!has(self.value) || self.value.matches('^[^\\x00]*$')",message="must not hold the character NUL (the value is not repeated here)",fieldPath=".value"
type EnvVar struct {
	// name of the variable.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	Name string `json:"name,omitempty"`

	// value of the variable, 32 KiB at most. Defaults to the empty string. $(VAR) is not expanded.
	// +optional
	// +kubebuilder:validation:MaxLength=32768
	Value string `json:"value,omitempty"`
}

// ContainerPort is a port the bot listens on, for probes to name.
//
// +kubebuilder:validation:XValidation:rule="self.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$') && self.name.matches('[a-z]') && !self.name.contains('--')",message="must be lower-case letters, digits and single dashes, with a letter (the value is not repeated here)",fieldPath=".name"
// +kubebuilder:validation:XValidation:rule="!has(self.hostPort)",message="Pod Security restricted, which a Tenant's namespaces enforce, opens no port of the node. Leave this out: nothing outside the node reaches a bot, and a probe goes by the name of the port",reason=FieldValueForbidden,fieldPath=".hostPort"
type ContainerPort struct {
	// name of the port.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=15
	Name string `json:"name,omitempty"`

	// containerPort is the number.
	// +required
	// +kubebuilder:validation:Minimum=1024
	// +kubebuilder:validation:Maximum=65535
	ContainerPort int32 `json:"containerPort,omitempty"`

	// hostPort is refused: a bot has no port of its node.
	// +optional
	// +kubebuilder:validation:Schemaless
	// +kubebuilder:validation:Type=integer
	HostPort *Refused `json:"hostPort,omitempty"`
}

// BotClaim names a volume that is there already.
type BotClaim struct {
	// existing is the name of a PersistentVolumeClaim in the bot's namespace that the bot takes over: one that was
	// retained when an earlier bot of this Tenant was deleted, or one that someone allowed the verb adopt on the
	// Tenant has given to it by the annotation lethe.dev/adopt. Cannot be changed or removed.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Existing string `json:"existing,omitempty"`
}

// BotStorage is a volume that outlives the pod.
//
// +kubebuilder:validation:XValidation:rule="has(self.size) || has(self.claim)",message="set size for a new volume, or claim.existing for one that is there"
// +kubebuilder:validation:XValidation:rule="!has(self.claim) || self.claim.existing.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')",message="must be the name of a PersistentVolumeClaim (the value is not repeated here)",fieldPath=".claim.existing"
// +kubebuilder:validation:XValidation:rule="!has(oldSelf.claim) || (has(self.claim) && self.claim.existing == oldSelf.claim.existing)",message="cannot be changed or removed",fieldPath=".claim"
// +kubebuilder:validation:XValidation:rule="!has(self.claim) || !has(self.reclaimPolicy) || self.reclaimPolicy != 'Delete'",message="a volume that was taken over is kept when the bot is deleted: say Retain. Whoever may adopt for the Tenant lets it go with the bot by the annotation lethe.dev/reclaim-policy: Delete on the PersistentVolumeClaim, once it is the bot's",fieldPath=".reclaimPolicy"
// +kubebuilder:validation:XValidation:rule="!has(self.size) || (quantity(string(self.size)).isGreaterThan(quantity('0')) && !quantity(string(self.size)).isGreaterThan(quantity('64Ti')) && quantity(string(self.size)).isInteger())",message="must be a whole number of bytes, more than 0 and at most 64Ti",fieldPath=".size"
// +kubebuilder:validation:XValidation:rule="!has(self.storageClassName) || self.storageClassName.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')",message="must be the name of a StorageClass (the value is not repeated here)",fieldPath=".storageClassName"
// +kubebuilder:validation:XValidation:rule="has(self.storageClassName) == has(oldSelf.storageClassName) && (!has(self.storageClassName) || self.storageClassName == oldSelf.storageClassName)",message="cannot be changed",fieldPath=".storageClassName"
// +kubebuilder:validation:XValidation:rule="self.mountPath.matches('^(/[-A-Za-z0-9._+@~]+)+$') && !self.mountPath.matches('/[.][.]?(/|$)')",message="must be an absolute path without . and .. and without a slash at its end",fieldPath=".mountPath"
// +kubebuilder:validation:XValidation:rule="!(self.mountPath + '/').matches('^/(proc|sys|dev|run|var/run|etc/hosts|etc/hostname|etc/resolv[.]conf)/') && !(self.mountPath in ['/etc', '/var'])",message="is Kubernetes' or Lethe's own, or holds what is: mount the volume elsewhere, for example at /data",fieldPath=".mountPath"
type BotStorage struct {
	// size of the volume. Cannot be changed. With claim it may be left out; said, the claim must have it.
	// +optional
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="spec.storage.size cannot be changed"
	Size resource.Quantity `json:"size,omitzero"`

	// claim takes over a volume that is there, instead of making a new one.
	// +optional
	Claim *BotClaim `json:"claim,omitempty"`

	// storageClassName of the volume. Left out, the cluster's default. Cannot be changed.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	StorageClassName *string `json:"storageClassName,omitempty"`

	// mountPath in the container: an absolute path that is not the system's (/proc, /sys, /dev, /run, /var/run, /etc,
	// /var).
	// +required
	// +kubebuilder:validation:MinLength=2
	// +kubebuilder:validation:MaxLength=256
	MountPath string `json:"mountPath,omitempty"`

	// reclaimPolicy says what happens to the volume when the bot is deleted. Defaults to Retain. With claim it is
	// Retain.
	// +optional
	// +kubebuilder:default=Retain
	// +kubebuilder:validation:Enum=Retain;Delete
	ReclaimPolicy string `json:"reclaimPolicy,omitempty"`
}

// BotRollout says how a new revision replaces the old one. There is one pod object at a time: the old one goes first.
type BotRollout struct {
	// terminationGracePeriodSeconds the old pod has to end. Defaults to 30.
	// +optional
	// +kubebuilder:default=30
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=600
	TerminationGracePeriodSeconds int64 `json:"terminationGracePeriodSeconds,omitempty"`

	// progressDeadlineSeconds after which a revision that is not ready makes the bot Stalled. Defaults to 300.
	// +optional
	// +kubebuilder:default=300
	// +kubebuilder:validation:Minimum=10
	// +kubebuilder:validation:Maximum=3600
	ProgressDeadlineSeconds int64 `json:"progressDeadlineSeconds,omitempty"`
}

// BotDeploymentSpec describes a bot: a restricted set of pod fields, its credentials and what it may reach.
//
// +kubebuilder:validation:XValidation:rule="!has(self.channels) || self.channels.all(c, !has(c.telegram) || (has(self.credentials) && self.credentials.exists(k, k.name == c.telegram.credential)))",message="a channel's credential must name an entry of spec.credentials",messageExpression="'spec.channels[%d].telegram.credential must name an entry of spec.credentials'.format([self.channels.map(c, !has(c.telegram) || (has(self.credentials) && self.credentials.exists(k, k.name == c.telegram.credential))).indexOf(false)])",fieldPath=".channels"
// +kubebuilder:validation:XValidation:rule="!has(self.channels) || self.channels.filter(c, c.type == 'Telegram').size() <= 1",message="spec.channels may hold one Telegram channel: a second bot token is a second BotDeployment"
// +kubebuilder:validation:XValidation:rule="!has(self.probes) || !has(self.probes.startup) || !has(self.probes.startup.port) || (has(self.ports) && self.ports.exists(q, q.name == self.probes.startup.port))",message="must name an entry of spec.ports",fieldPath=".probes.startup.port"
// +kubebuilder:validation:XValidation:rule="!has(self.probes) || !has(self.probes.liveness) || !has(self.probes.liveness.port) || (has(self.ports) && self.ports.exists(q, q.name == self.probes.liveness.port))",message="must name an entry of spec.ports",fieldPath=".probes.liveness.port"
// +kubebuilder:validation:XValidation:rule="!has(self.probes) || !has(self.probes.readiness) || !has(self.probes.readiness.port) || (has(self.ports) && self.ports.exists(q, q.name == self.probes.readiness.port))",message="must name an entry of spec.ports",fieldPath=".probes.readiness.port"
// +kubebuilder:validation:XValidation:rule="self.image.matches('^(([A-Za-z0-9]([-A-Za-z0-9]*[A-Za-z0-9])?([.][A-Za-z0-9]([-A-Za-z0-9]*[A-Za-z0-9])?)*|[[][0-9a-fA-F:]+[]])(:[0-9]+)?/)?[a-z0-9]+(([._]|__|-+)[a-z0-9]+)*(/[a-z0-9]+(([._]|__|-+)[a-z0-9]+)*)*(:[A-Za-z0-9_][-A-Za-z0-9_.]{0,127})?(@(sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128}))?$') && !self.image.matches('^[0-9a-f]{64}$') && self.image.find('^([^/]*/)?[^:@]*').size() <= 255",message="must be the name of an image such as registry.example/bot:v1 (the value is not repeated here)",messageExpression="self.image.contains('://') ? 'must be the name of an image such as registry.example/bot:v1: leave out the scheme, all that stands before the registry (the value is not repeated here)' : self.image.matches('^[^[:space:]]*[[:space:]]') ? 'must be the name of an image such as registry.example/bot:v1, without spaces and line breaks (the value is not repeated here)' : self.image.find('^([^/]*/)?[^:@]*').size() > 255 ? 'must be the name of an image such as registry.example/bot:v1 with at most 255 characters before tag and digest (the value is not repeated here)' : self.image.matches('^([^/]*/)?[^:@]*[A-Z]') ? 'must be the name of an image such as registry.example/bot:v1, with a repository in lower case (the value is not repeated here)' : 'must be the name of an image such as registry.example/bot:v1, with a tag or a whole digest (sha256: and 64 digits in lower case) where there is one (the value is not repeated here)'",fieldPath=".image"
// +kubebuilder:validation:XValidation:rule="!has(self.command) || self.command.all(c, c.matches('^[^\\x00]*$'))",message="must not hold the character NUL (the values are not repeated here)",messageExpression="'command[%d] must not hold the character NUL (the value is not repeated here)'.format([self.command.map(c, c.matches('^[^\\x00]*$')).indexOf(false)])",fieldPath=".command"
// +kubebuilder:validation:XValidation:rule="!has(self.args) || self.args.all(c, c.matches('^[^\\x00]*$'))",message="must not hold the character NUL (the values are not repeated here)",messageExpression="'args[%d] must not hold the character NUL (the value is not repeated here)'.format([self.args.map(c, c.matches('^[^\\x00]*$')).indexOf(false)])",fieldPath=".args"
// +kubebuilder:validation:XValidation:rule="!has(self.channels) || !self.channels.exists(c, c.type == 'Telegram') || ((!has(self.env) || !self.env.exists(e, e.name in ['TELEGRAM_BOT_TOKEN_FILE', 'TELEGRAM_API_URL'])) && (!has(self.credentials) || !self.credentials.exists(c, has(c.envName) && c.envName in ['TELEGRAM_BOT_TOKEN_FILE', 'TELEGRAM_API_URL'])))",message="sets TELEGRAM_BOT_TOKEN_FILE and TELEGRAM_API_URL itself: take these out of env and of envName",fieldPath=".channels"
// +kubebuilder:validation:XValidation:rule="!has(self.timeZone) || self.timeZone.matches('^[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)*$')",message="must be a zone of the IANA database such as Europe/Berlin (the value is not repeated here)",fieldPath=".timeZone"
// +kubebuilder:validation:XValidation:rule="has(self.storage) == has(oldSelf.storage)",message="spec.storage cannot be added or removed: make a new BotDeployment"
// +kubebuilder:validation:XValidation:rule="!has(self.hostNetwork)",message="Pod Security restricted, which a Tenant's namespaces enforce, gives no pod the node's network. Leave this out: a bot has a network of its own, from which spec.egress opens what it calls",reason=FieldValueForbidden,fieldPath=".hostNetwork"
// +kubebuilder:validation:XValidation:rule="!has(self.hostPID)",message="Pod Security restricted, which a Tenant's namespaces enforce, shows no pod the node's processes. Leave this out: what is to run beside the bot is an entry of spec.helpers",reason=FieldValueForbidden,fieldPath=".hostPID"
// +kubebuilder:validation:XValidation:rule="!has(self.hostIPC)",message="Pod Security restricted, which a Tenant's namespaces enforce, gives no pod the node's shared memory. Leave this out: shared memory of the bot's own is an entry of spec.scratch at /dev/shm",reason=FieldValueForbidden,fieldPath=".hostIPC"
// +kubebuilder:validation:XValidation:rule="!has(self.securityContext)",message="Pod Security restricted, which a Tenant's namespaces enforce, leaves no choice of privileges, so that Lethe makes it. Leave this out: containers run as the Tenant's user id, without capabilities, and where one must write is an entry of spec.scratch, or spec.storage",reason=FieldValueForbidden,fieldPath=".securityContext"
// +kubebuilder:validation:XValidation:rule="!has(self.volumes)",message="Pod Security restricted, which a Tenant's namespaces enforce, mounts no folder of the node. Leave this out: a volume is spec.storage, an empty directory an entry of spec.scratch, a file or a key of a ConfigMap an entry of spec.files, a secret an entry of spec.credentials",reason=FieldValueForbidden,fieldPath=".volumes"
// +kubebuilder:validation:XValidation:rule="!has(self.lifecycle)",message="Pod Security restricted, which a Tenant's namespaces enforce, lets no hook call another host, and Lethe runs none. Leave this out: what prepares goes into the program's own start, and a container that is to end gets SIGTERM and spec.rollout.terminationGracePeriodSeconds",reason=FieldValueForbidden,fieldPath=".lifecycle"
// +kubebuilder:validation:XValidation:rule="!has(self.podAnnotations) || !self.podAnnotations.exists(k, k.startsWith('container.apparmor.security.beta.kubernetes.io/'))",message="Pod Security restricted, which a Tenant's namespaces enforce, takes no choice of an AppArmor profile. Leave out what begins with container.apparmor.security.beta.kubernetes.io/: containers have the node's default profile",reason=FieldValueForbidden,fieldPath=".podAnnotations"
type BotDeploymentSpec struct {
	// image of the bot. It runs as the first id of the Tenant's status.uidRange whatever the image says, without
	// capabilities and with a read-only root file system.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	Image string `json:"image,omitempty"`

	// imagePullPolicy of the image. Left out, Kubernetes' own default for the image's tag applies.
	// +optional
	// +kubebuilder:validation:Enum=Always;IfNotPresent;Never
	ImagePullPolicy corev1.PullPolicy `json:"imagePullPolicy,omitempty"`

	// imagePullSecrets are the names of Secrets of the bot's namespace that the image may be pulled with. Lethe does
	// not copy them. Those of the Tenant, and of the installation, come after them.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=8
	ImagePullSecrets []ImagePullSecret `json:"imagePullSecrets,omitempty"`

	// podAnnotations are put on the bot's pod. Each must be one that the installation allows (chart:
	// pods.botAnnotations). No secrets here.
	// +optional
	// +kubebuilder:validation:MinProperties=1
	// +kubebuilder:validation:MaxProperties=8
	PodAnnotations map[string]string `json:"podAnnotations,omitempty"`

	// command replaces the image's entry point. $(VAR) is not expanded.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MaxLength=1024
	Command []string `json:"command,omitempty"`

	// args replace the image's arguments. $(VAR) is not expanded. No secrets here.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=1024
	Args []string `json:"args,omitempty"`

	// env are plain variables. HOME and TMPDIR, where they are not among them, name directories that the bot can
	// write to.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=64
	Env []EnvVar `json:"env,omitempty"`

	// ports the bot listens on. Nothing outside the pod's node can reach them: they are for probes.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=8
	Ports []ContainerPort `json:"ports,omitempty"`

	// probes of the bot. Left out, a started container counts as ready.
	// +optional
	Probes *Probes `json:"probes,omitempty"`

	// resources of the container. A limit that is left out is that of the namespace's LimitRange, or the request
	// where that is more.
	// +optional
	Resources *BotResources `json:"resources,omitempty"`

	// channels are the messengers that the bot talks through.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=8
	Channels []Channel `json:"channels,omitempty"`

	// credentials of the bot.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=16
	Credentials []Credential `json:"credentials,omitempty"`

	// egress opens public addresses. Blocks that are private, local or otherwise special are opened by the Tenant's
	// egress alone. Without it (and without a channel that brings its own) the bot reaches DNS and the keyserver only.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:XValidation:rule="!isCIDR(self.cidr) || !['0.0.0.0/8','10.0.0.0/8','100.64.0.0/10','127.0.0.0/8','168.63.129.16/32','169.254.0.0/16','172.16.0.0/12','192.0.0.0/24','192.0.2.0/24','192.88.99.0/24','192.168.0.0/16','198.18.0.0/15','198.51.100.0/24','203.0.113.0/24','224.0.0.0/4','240.0.0.0/4','::/3','2001::/23','2001:db8::/32','2002::/16','3fff::/20','4000::/2','8000::/1'].exists(p, cidr(p).containsCIDR(cidr(self.cidr)))",message="a private or special address: only the Tenant's spec.egress can open one",fieldPath=".cidr"
	Egress []EgressRule `json:"egress,omitempty"`

	// storage gives the bot a volume. Left out, it has none.
	// +optional
	Storage *BotStorage `json:"storage,omitempty"`

	// scratch directories are empty when a pod starts and go with it. Where none is at /tmp there is one of 1Gi on
	// the node's disk.
	// +optional
	// +listType=map
	// +listMapKey=path
	// +kubebuilder:validation:MaxItems=8
	Scratch []BotScratch `json:"scratch,omitempty"`

	// files that the bot finds in its container, for what wants a configuration file. Their contents are part of the
	// revision, and are read by whoever may read pods in the namespace: a secret goes into credentials and is named
	// in the file. 128 KiB together.
	// +optional
	// +listType=map
	// +listMapKey=path
	// +kubebuilder:validation:MaxItems=8
	Files []BotFile `json:"files,omitempty"`

	// helpers are containers that run beside the bot's own, in its pod.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=2
	Helpers []BotHelper `json:"helpers,omitempty"`

	// timeZone of the IANA database, for example Europe/Berlin: the containers find it in TZ. Left out, nothing is
	// set, and most programs take Etc/UTC.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:XValidation:rule="!self.matches('^[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)*$') || timestamp('2026-01-01T00:00:00Z').getHours(self) >= 0",message="must be a zone of the IANA database such as Europe/Berlin or Etc/UTC"
	TimeZone string `json:"timeZone,omitempty"`

	// restartedAt is when somebody asked for a restart, for example 2026-11-26T09:30:00Z: another time is a new
	// revision, and replaces the pod once. The time itself means nothing; nothing waits for it.
	// +optional
	RestartedAt metav1.Time `json:"restartedAt,omitzero"`

	// rollout of new revisions.
	// +optional
	// +kubebuilder:default={}
	Rollout BotRollout `json:"rollout,omitzero"`

	// operatingMode of the bot. Defaults to Running.
	// +optional
	// +kubebuilder:default=Running
	OperatingMode OperatingMode `json:"operatingMode,omitempty"`

	// hostNetwork is refused: a bot has a network of its own.
	// +optional
	// +kubebuilder:validation:Schemaless
	// +kubebuilder:validation:Type=boolean
	HostNetwork *Refused `json:"hostNetwork,omitempty"`

	// hostPID is refused: a bot sees the processes of its own container.
	// +optional
	// +kubebuilder:validation:Schemaless
	// +kubebuilder:validation:Type=boolean
	HostPID *Refused `json:"hostPID,omitempty"`

	// hostIPC is refused: a bot shares memory with no other pod.
	// +optional
	// +kubebuilder:validation:Schemaless
	// +kubebuilder:validation:Type=boolean
	HostIPC *Refused `json:"hostIPC,omitempty"`

	// securityContext is refused: Lethe makes it.
	// +optional
	SecurityContext *Refused `json:"securityContext,omitempty"`

	// volumes are refused: see storage, scratch, files and credentials.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=256
	Volumes []Refused `json:"volumes,omitempty"`

	// lifecycle is refused: a bot has no hooks.
	// +optional
	Lifecycle *Refused `json:"lifecycle,omitempty"`
}

// BotResources are requests and limits of the bot's container.
//
// +kubebuilder:validation:XValidation:rule="!has(self.requests) || self.requests.all(k, k in ['cpu','memory','ephemeral-storage'])",message="may name cpu, memory and ephemeral-storage alone",messageExpression="[self.requests.filter(k, !(k in ['cpu','memory','ephemeral-storage']))[0]].map(k, k.matches('^[-A-Za-z0-9./]+$') ? k : 'a name')[0] + ' is not taken here: name cpu, memory and ephemeral-storage alone'",fieldPath=".requests"
// +kubebuilder:validation:XValidation:rule="!has(self.requests) || ['cpu','memory','ephemeral-storage'].all(k, !(k in self.requests) || quantity(string(self.requests[k])).isGreaterThan(quantity('0')) && !quantity(string(self.requests[k])).isGreaterThan(quantity(k == 'cpu' ? '4096' : '64Ti')))",message="must be more than 0, and at most 4096 of cpu and 64Ti of the others",messageExpression="'cpu' in self.requests && (!quantity(string(self.requests['cpu'])).isGreaterThan(quantity('0')) || quantity(string(self.requests['cpu'])).isGreaterThan(quantity('4096'))) ? 'cpu must be more than 0, and at most 4096' : 'memory' in self.requests && (!quantity(string(self.requests['memory'])).isGreaterThan(quantity('0')) || quantity(string(self.requests['memory'])).isGreaterThan(quantity('64Ti'))) ? 'memory must be more than 0, and at most 64Ti' : 'ephemeral-storage must be more than 0, and at most 64Ti'",fieldPath=".requests"
// +kubebuilder:validation:XValidation:rule="!has(self.limits) || self.limits.all(k, k in ['cpu','memory','ephemeral-storage'])",message="may name cpu, memory and ephemeral-storage alone",messageExpression="[self.limits.filter(k, !(k in ['cpu','memory','ephemeral-storage']))[0]].map(k, k.matches('^[-A-Za-z0-9./]+$') ? k : 'a name')[0] + ' is not taken here: name cpu, memory and ephemeral-storage alone'",fieldPath=".limits"
// +kubebuilder:validation:XValidation:rule="!has(self.limits) || ['cpu','memory','ephemeral-storage'].all(k, !(k in self.limits) || quantity(string(self.limits[k])).isGreaterThan(quantity('0')) && !quantity(string(self.limits[k])).isGreaterThan(quantity(k == 'cpu' ? '4096' : '64Ti')))",message="must be more than 0, and at most 4096 of cpu and 64Ti of the others",messageExpression="'cpu' in self.limits && (!quantity(string(self.limits['cpu'])).isGreaterThan(quantity('0')) || quantity(string(self.limits['cpu'])).isGreaterThan(quantity('4096'))) ? 'cpu must be more than 0, and at most 4096' : 'memory' in self.limits && (!quantity(string(self.limits['memory'])).isGreaterThan(quantity('0')) || quantity(string(self.limits['memory'])).isGreaterThan(quantity('64Ti'))) ? 'memory must be more than 0, and at most 64Ti' : 'ephemeral-storage must be more than 0, and at most 64Ti'",fieldPath=".limits"
// +kubebuilder:validation:XValidation:rule="!has(self.requests) || !has(self.limits) || ['cpu','memory','ephemeral-storage'].all(k, !(k in self.requests) || !(k in self.limits) || !quantity(string(self.requests[k])).isGreaterThan(quantity(string(self.limits[k]))))",message="must not be more than limits",messageExpression="'cpu' in self.requests && 'cpu' in self.limits && quantity(string(self.requests['cpu'])).isGreaterThan(quantity(string(self.limits['cpu']))) ? 'cpu must not be more than limits.cpu' : 'memory' in self.requests && 'memory' in self.limits && quantity(string(self.requests['memory'])).isGreaterThan(quantity(string(self.limits['memory']))) ? 'memory must not be more than limits.memory' : 'ephemeral-storage must not be more than limits.ephemeral-storage'",fieldPath=".requests"
type BotResources struct {
	// requests of cpu, memory and ephemeral-storage.
	// +optional
	// +kubebuilder:validation:MaxProperties=3
	Requests corev1.ResourceList `json:"requests,omitempty"`
	// limits of cpu, memory and ephemeral-storage.
	// +optional
	// +kubebuilder:validation:MaxProperties=3
	Limits corev1.ResourceList `json:"limits,omitempty"`
}

// BotClaimStatus is the volume that a bot has.
type BotClaimStatus struct {
	// name of the PersistentVolumeClaim.
	// +required
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name,omitempty"`

	// uid of the PersistentVolumeClaim.
	// +required
	// +kubebuilder:validation:MaxLength=63
	UID string `json:"uid,omitempty"`
}

// BotDeploymentStatus is what was observed.
type BotDeploymentStatus struct {
	// observedGeneration of the spec that the conditions speak of.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// conditions are Ready, Reconciling, Stalled, IsolationReady, CredentialsReady, WorkloadReady.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=16
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// tenant that the bot's namespace belongs to.
	// +optional
	// +kubebuilder:validation:MaxLength=63
	Tenant string `json:"tenant,omitempty"`

	// credentialsSecret names the encrypted Secret that the present revision uses.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	CredentialsSecret string `json:"credentialsSecret,omitempty"`

	// credentialsGeneration is how often the keyserver had written the data key's document when it was last seen. One
	// that was written less often is an earlier copy, and is refused.
	// +optional
	// +kubebuilder:validation:Minimum=1
	CredentialsGeneration int64 `json:"credentialsGeneration,omitempty"`

	// claim is the PersistentVolumeClaim that holds the bot's data. One that was there and is gone is never replaced
	// by an empty one.
	// +optional
	Claim *BotClaimStatus `json:"claim,omitempty"`
}

// BotDeployment is one bot of a tenant.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=bot;bots,categories=lethe
// +kubebuilder:printcolumn:name="Tenant",type=string,JSONPath=`.status.tenant`
// +kubebuilder:printcolumn:name="Mode",type=string,JSONPath=`.spec.operatingMode`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Image",type=string,priority=1,JSONPath=`.spec.image`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type BotDeployment struct {
	metav1.TypeMeta `json:",inline"`
	// metadata of the object.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec is what is asked for.
	// +required
	Spec BotDeploymentSpec `json:"spec,omitzero"`

	// status is what was observed. An object begins with one that says that nobody has looked at it, so that nothing
	// takes it for ready, whether the manager runs or not.
	// +optional
	// +kubebuilder:default={"observedGeneration":-1,"conditions":{{"type":"Ready","status":"Unknown","reason":"Pending","message":"Waiting for the manager to look at it.","lastTransitionTime":"1970-01-01T00:00:00Z"},{"type":"Reconciling","status":"True","reason":"Pending","message":"See condition Ready.","lastTransitionTime":"1970-01-01T00:00:00Z"},{"type":"IsolationReady","status":"Unknown","reason":"Pending","message":"See condition Ready.","lastTransitionTime":"1970-01-01T00:00:00Z"},{"type":"CredentialsReady","status":"Unknown","reason":"Pending","message":"See condition Ready.","lastTransitionTime":"1970-01-01T00:00:00Z"},{"type":"WorkloadReady","status":"Unknown","reason":"Pending","message":"See condition Ready.","lastTransitionTime":"1970-01-01T00:00:00Z"}}}
	Status BotDeploymentStatus `json:"status,omitzero"`
}

// BotDeploymentList is a list of bots.
//
// +kubebuilder:object:root=true
type BotDeploymentList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []BotDeployment `json:"items"`
}
