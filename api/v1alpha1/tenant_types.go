package v1alpha1

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TenantClass says what a tenant is.
// +kubebuilder:validation:Enum=Customer;Platform
type TenantClass string

const (
	// TenantCustomer is a customer of the host company.
	TenantCustomer TenantClass = "Customer"
	// TenantPlatform is the host company itself. Only its namespaces may hold shared stores.
	TenantPlatform TenantClass = "Platform"
)

// TenantState says whether a tenant's bots run.
// +kubebuilder:validation:Enum=Active;Suspended
type TenantState string

const (
	// TenantActive lets bots run.
	TenantActive TenantState = "Active"
	// TenantSuspended stops every bot of the tenant; data stays and retention goes on.
	TenantSuspended TenantState = "Suspended"
)

// RetainedVolumesPolicy says whether volumes of bots that are gone keep their Tenant from being deleted.
// +kubebuilder:validation:Enum=Protect;Release
type RetainedVolumesPolicy string

const (
	// RetainedVolumesProtect counts them as in use.
	RetainedVolumesProtect RetainedVolumesPolicy = "Protect"
	// RetainedVolumesRelease lets them go: with the namespaces that Lethe made, or to whoever has the others next.
	RetainedVolumesRelease RetainedVolumesPolicy = "Release"
)

// UserNamespaces says whether a tenant's bots run in a Linux user namespace of their own.
// +kubebuilder:validation:Enum=Enabled;Disabled
type UserNamespaces string

const (
	// UserNamespacesEnabled gives each bot a user namespace: who escapes from the container is nobody on the node.
	UserNamespacesEnabled UserNamespaces = "Enabled"
	// UserNamespacesDisabled runs bots under the node's own user ids, out of the Tenant's range.
	UserNamespacesDisabled UserNamespaces = "Disabled"
)

// AccessRole is what a group may do in a tenant's namespaces.
// +kubebuilder:validation:Enum=View;Operate
type AccessRole string

const (
	// AccessView reads bots, stores, pods' state and events; no Secrets, no logs.
	AccessView AccessRole = "View"
	// AccessOperate adds writing BotDeployments and reading logs. No exec, no ephemeral containers, no tokens,
	// no writing of pods, ConfigMaps, Secrets or DataStores.
	AccessOperate AccessRole = "Operate"
)

// TenantNamespace is one namespace of a tenant.
//
// +kubebuilder:validation:XValidation:rule="self.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",message="must be the name of a namespace: lower-case letters, digits and dashes (the value is not repeated here)",fieldPath=".name"
type TenantNamespace struct {
	// name of the namespace. It is created when absent; one that exists is taken only when it already carries the
	// protected label lethe.dev/tenant with this tenant's name.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Name string `json:"name,omitempty"`
}

// ExternalID is what a tenant is called in a shared store.
//
// +kubebuilder:validation:XValidation:rule="self.type.matches('^[A-Z][A-Za-z0-9]*$')",message="write a type as AccountID: letters and digits, a capital first (the value is not repeated here)",fieldPath=".type"
// +kubebuilder:validation:XValidation:rule="self.value.matches('^[^\\x00-\\x1f\\x7f]+$')",message="must not hold control characters",fieldPath=".value"
type ExternalID struct {
	// type of the identifier, in the host company's words, for example AccountID. A shared store names the type it
	// uses.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Type string `json:"type,omitempty"`

	// value as the store's tenant column holds it. One type and value belongs to one tenant in the whole cluster;
	// where two claim it, neither claim is believed by retention (the rows go by the base window, as an unknown
	// tenant's), the Tenant that claimed it later is Stalled (ExternalIDTaken), and the one that has it in its status
	// says so and stays Ready. Use an identifier that says nothing about a person.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	Value string `json:"value,omitempty"`
}

// TenantQuota bounds what a tenant may use, in each of its namespaces: all of them together may use as many times as
// much as the Tenant has namespaces. Sweeps of Lethe are not counted.
//
// +kubebuilder:validation:XValidation:rule="!has(self.cpu) || (quantity(string(self.cpu)).isGreaterThan(quantity('0')) && !quantity(string(self.cpu)).isGreaterThan(quantity('100k')))",message="must be more than 0 and at most 100k; to stop all bots, set spec.state to Suspended",fieldPath=".cpu"
// +kubebuilder:validation:XValidation:rule="!has(self.memory) || (quantity(string(self.memory)).isGreaterThan(quantity('0')) && !quantity(string(self.memory)).isGreaterThan(quantity('1Pi')))",message="must be more than 0 and at most 1Pi; to stop all bots, set spec.state to Suspended",fieldPath=".memory"
// +kubebuilder:validation:XValidation:rule="!has(self.storage) || (!quantity(string(self.storage)).isLessThan(quantity('0')) && !quantity(string(self.storage)).isGreaterThan(quantity('1Ei')))",message="must be at least 0, which is no volumes, and at most 1Ei",fieldPath=".storage"
// +kubebuilder:validation:XValidation:rule="!has(self.ephemeralStorage) || (!quantity(string(self.ephemeralStorage)).isLessThan(quantity('4Gi')) && !quantity(string(self.ephemeralStorage)).isGreaterThan(quantity('64Ti')))",message="must be at least 4Gi and at most 64Ti",fieldPath=".ephemeralStorage"
type TenantQuota struct {
	// bots are how many BotDeployments may exist, suspended ones too. What belongs to them is bounded with them.
	// Defaults to 50.
	// +optional
	// +kubebuilder:default=50
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=1000
	Bots *int32 `json:"bots,omitempty"`

	// stores are how many DataStores may exist. Defaults to 10.
	// +optional
	// +kubebuilder:default=10
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=200
	Stores *int32 `json:"stores,omitempty"`

	// pods that may exist at a time. Defaults to 50.
	// +optional
	// +kubebuilder:default=50
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=3000
	Pods *int32 `json:"pods,omitempty"`

	// cpu is the sum of CPU limits. Defaults to 20.
	// +optional
	CPU *resource.Quantity `json:"cpu,omitempty"`

	// memory is the sum of memory limits. Defaults to 40Gi.
	// +optional
	Memory *resource.Quantity `json:"memory,omitempty"`

	// storage is the sum of what PersistentVolumeClaims request. Defaults to 100Gi.
	// +optional
	Storage *resource.Quantity `json:"storage,omitempty"`

	// ephemeralStorage is what all pods of bots may reserve of their nodes' disks together, and the most that one
	// container may have of its node's: scratch directories and logs. Defaults to 20Gi.
	// +optional
	EphemeralStorage *resource.Quantity `json:"ephemeralStorage,omitempty"`
}

// Toleration lets a tenant's pods onto nodes that a taint keeps others off. There is none that tolerates every taint:
// a key is needed.
//
// +kubebuilder:validation:XValidation:rule="self.key.matches('^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$')",message="must be the key of a taint such as example.com/pool (the value is not repeated here)",fieldPath=".key"
// +kubebuilder:validation:XValidation:rule="!has(self.value) || self.value.matches('^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$')",message="must be the value of a taint: letters, digits, dashes, dots and underscores (the value is not repeated here)",fieldPath=".value"
// +kubebuilder:validation:XValidation:rule="!has(self.operator) || self.operator != 'Exists' || !has(self.value) || self.value.size() == 0",message="must be left out where operator is Exists, which takes every value",fieldPath=".value"
// +kubebuilder:validation:XValidation:rule="!has(self.tolerationSeconds) || (has(self.effect) && self.effect == 'NoExecute')",message="needs effect NoExecute: nothing else takes a pod off its node",fieldPath=".tolerationSeconds"
type Toleration struct {
	// key of the taint.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Key string `json:"key,omitempty"`

	// operator is Equal for one value, which is meant when it is left out, or Exists for every value of the key.
	// +optional
	// +kubebuilder:validation:Enum=Equal;Exists
	Operator corev1.TolerationOperator `json:"operator,omitempty"`

	// value of the taint, for operator Equal. Left out, the empty one.
	// +optional
	// +kubebuilder:validation:MaxLength=63
	Value string `json:"value,omitempty"`

	// effect of the taint. Left out, every effect.
	// +optional
	// +kubebuilder:validation:Enum=NoSchedule;PreferNoSchedule;NoExecute
	Effect corev1.TaintEffect `json:"effect,omitempty"`

	// tolerationSeconds that a pod stays on a node once it has the taint, for effect NoExecute. Left out, for ever.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=604800
	TolerationSeconds *int64 `json:"tolerationSeconds,omitempty"`
}

// TopologySpread spreads a tenant's bots over nodes or zones. It counts the bots of one namespace.
//
// +kubebuilder:validation:XValidation:rule="self.topologyKey.matches('^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$')",message="must be the key of a node's label such as topology.kubernetes.io/zone (the value is not repeated here)",fieldPath=".topologyKey"
type TopologySpread struct {
	// topologyKey is the node's label by which nodes are told apart, for example topology.kubernetes.io/zone or
	// kubernetes.io/hostname.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	TopologyKey string `json:"topologyKey,omitempty"`

	// maxSkew is how many more bots there may be in one place than in another. Left out, 1.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100
	MaxSkew int32 `json:"maxSkew,omitempty"`

	// whenUnsatisfiable says what becomes of a bot that would break it: ScheduleAnyway, which is meant when it is
	// left out, or DoNotSchedule, with which it waits.
	// +optional
	// +kubebuilder:validation:Enum=ScheduleAnyway;DoNotSchedule
	WhenUnsatisfiable corev1.UnsatisfiableConstraintAction `json:"whenUnsatisfiable,omitempty"`
}

// TenantPlacement says where a tenant's pods may run, and under what.
//
// +kubebuilder:validation:XValidation:rule="has(self.nodeSelector) || has(self.tolerations) || has(self.runtimeClassName) || has(self.priorityClassName) || has(self.topologySpread) || has(self.affinity)",message="says nothing: set one of nodeSelector, tolerations, runtimeClassName, priorityClassName, topologySpread and affinity, or leave it out"
// +kubebuilder:validation:XValidation:rule="!has(self.runtimeClassName) || self.runtimeClassName.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')",message="must be the name of a RuntimeClass (the value is not repeated here)",fieldPath=".runtimeClassName"
// +kubebuilder:validation:XValidation:rule="!has(self.priorityClassName) || self.priorityClassName.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')",message="must be the name of a PriorityClass (the value is not repeated here)",fieldPath=".priorityClassName"
// +kubebuilder:validation:XValidation:rule="!has(self.priorityClassName) || !self.priorityClassName.matches('^(system|lethe)-')",message="is one of Kubernetes' own or of Lethe's, which bots do not get: they would push out what the cluster stands on, or be counted by no quota",fieldPath=".priorityClassName"
type TenantPlacement struct {
	// nodeSelector that every pod of the tenant gets, for example topology.kubernetes.io/region: eu-central-1.
	// +optional
	// +kubebuilder:validation:MinProperties=1
	// +kubebuilder:validation:MaxProperties=8
	NodeSelector map[string]string `json:"nodeSelector,omitempty"`

	// tolerations that every pod of the tenant gets.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	Tolerations []Toleration `json:"tolerations,omitempty"`

	// runtimeClassName that every pod of the tenant runs under, for example one of gVisor's or of Kata's.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	RuntimeClassName string `json:"runtimeClassName,omitempty"`

	// priorityClassName of the tenant's bots. Sweeps keep Lethe's own, which no quota counts.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	PriorityClassName string `json:"priorityClassName,omitempty"`

	// topologySpread of the tenant's bots. A sweep is alone.
	// +optional
	// +listType=map
	// +listMapKey=topologyKey
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=4
	TopologySpread []TopologySpread `json:"topologySpread,omitempty"`

	// affinity of the tenant's pods to nodes, and of its bots to other pods of their namespace.
	// +optional
	Affinity *TenantAffinity `json:"affinity,omitempty"`
}

// TenantAccess gives a group a role in all namespaces of the tenant.
//
// +kubebuilder:validation:XValidation:rule="self.group.matches('^[^\\x00-\\x20\\x7f]([^\\x00-\\x1f\\x7f]*[^\\x00-\\x20\\x7f])?$')",message="must be a group's name without control characters and without spaces around it",fieldPath=".group"
type TenantAccess struct {
	// group as the API server's authentication names it.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Group string `json:"group,omitempty"`

	// role the group gets.
	// +required
	Role AccessRole `json:"role,omitempty"`
}

// EgressCeiling is the most that a tenant's bots can open by themselves.
type EgressCeiling struct {
	// allow lists blocks and ports. Left out or empty, bots open nothing by themselves.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=16
	Allow []EgressLimit `json:"allow,omitempty"`
}

// EgressLimit is a block of addresses with the ports on it that bots may open.
//
// +kubebuilder:validation:XValidation:rule="isCIDR(self.cidr)",message="not a block of addresses: write one such as 140.82.112.0/20 or 2606:50c0::/32",fieldPath=".cidr"
// +kubebuilder:validation:XValidation:rule="!isCIDR(self.cidr) || cidr(self.cidr) == cidr(self.cidr).masked()",message="has bits set behind its length: write the block's first address, such as 10.0.0.0/8 for 10.0.0.5/8",fieldPath=".cidr"
type EgressLimit struct {
	// cidr is the block of addresses, IPv4 or IPv6, for example 203.0.113.0/24. One that holds private addresses does
	// not let bots open those.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=43
	CIDR string `json:"cidr,omitempty"`

	// ports that may be opened.
	// +required
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	Ports []EgressPortRange `json:"ports,omitempty"`
}

// EgressPortRange is a port, or all ports from one to another.
//
// +kubebuilder:validation:XValidation:rule="!has(self.endPort) || self.endPort >= self.port",message="endPort must not be less than port",fieldPath=".endPort"
type EgressPortRange struct {
	// protocol of the ports. Defaults to TCP.
	// +optional
	// +kubebuilder:validation:Enum=TCP;UDP
	Protocol string `json:"protocol,omitempty"`

	// port is the first one.
	// +required
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	Port int32 `json:"port,omitempty"`

	// endPort is the last one. Left out, it is port.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	EndPort int32 `json:"endPort,omitempty"`
}

// ForeignObjectKind is a kind of what can be in a namespace from before.
//
// +kubebuilder:validation:Enum=Service;EndpointSlice;Pod;Job;CronJob;StatefulSet;ReplicaSet;Deployment;DaemonSet;ReplicationController
type ForeignObjectKind string

// ForeignObject names a foreign object. What belongs to it need not be named: a Deployment's pods, a Service's
// endpoints.
//
// +kubebuilder:validation:XValidation:rule="self.name.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')",message="must be the name of an object (the value is not repeated here)",fieldPath=".name"
type ForeignObject struct {
	// kind of the object.
	// +required
	Kind ForeignObjectKind `json:"kind,omitempty"`

	// name of the object, in whichever of the tenant's namespaces it is.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name,omitempty"`
}

// ForeignNetworkPolicy names a foreign network policy.
//
// +kubebuilder:validation:XValidation:rule="!has(self.group) || self.group.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')",message="must be the group of an API such as cilium.io (the value is not repeated here)",fieldPath=".group"
// +kubebuilder:validation:XValidation:rule="!has(self.resource) || self.resource.matches('^[a-z]+$')",message="must be the plural of a kind in lower case such as ciliumnetworkpolicies (the value is not repeated here)",fieldPath=".resource"
// +kubebuilder:validation:XValidation:rule="self.name.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')",message="must be the name of a network policy (the value is not repeated here)",fieldPath=".name"
type ForeignNetworkPolicy struct {
	// group of its kind. Defaults to networking.k8s.io.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Group string `json:"group,omitempty"`

	// resource is the plural of its kind, in lower case. Defaults to networkpolicies.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Resource string `json:"resource,omitempty"`

	// name of the policy, in whichever of the tenant's namespaces it is.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name,omitempty"`
}

// RetentionOverride shortens the window of one data class for this tenant.
//
// +kubebuilder:validation:XValidation:rule="self.dataClass.matches('^[A-Z][A-Za-z0-9]*$')",message="write a class as Conversations: letters and digits, a capital first (the value is not repeated here)",fieldPath=".dataClass"
type RetentionOverride struct {
	// dataClass whose window is shortened.
	// +required
	DataClass DataClass `json:"dataClass,omitempty"`

	// retainFor that applies instead, provably shorter than the policy's own. One that is longer, or cannot be
	// compared (30 days against 1 month), is refused and the policy's own window stays.
	// +required
	RetainFor *Period `json:"retainFor,omitempty"`
}

// TenantSpec says who a customer is, and what its bots may use.
type TenantSpec struct {
	// class of the tenant. Defaults to Customer. Cannot be changed.
	// +optional
	// +kubebuilder:default=Customer
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="spec.class cannot be changed: make a new Tenant"
	Class TenantClass `json:"class,omitempty"`

	// state of the tenant. Defaults to Active.
	// +optional
	// +kubebuilder:default=Active
	State TenantState `json:"state,omitempty"`

	// namespaces of the tenant. Taking one off the list is refused while it holds bots or stores; it is then left as
	// it is, without our RoleBindings.
	// +required
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	Namespaces []TenantNamespace `json:"namespaces,omitempty"`

	// externalIDs are what this tenant is called in shared stores.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=32
	ExternalIDs []ExternalID `json:"externalIDs,omitempty"`

	// quota of each namespace. Left out, the defaults of its fields apply.
	// +optional
	Quota *TenantQuota `json:"quota,omitempty"`

	// placement of the tenant's pods. Left out, they run on any node.
	// +optional
	Placement *TenantPlacement `json:"placement,omitempty"`

	// imagePullSecrets are the names of Secrets that images of the tenant's bots, and of Lethe's helper and sweeper,
	// may be pulled with. Each is in the pod's own namespace: Lethe neither copies nor reads them into a pod. Those
	// of bots come before them.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=8
	ImagePullSecrets []ImagePullSecret `json:"imagePullSecrets,omitempty"`

	// userNamespaces runs each bot in a Linux user namespace of its own, a wall against escapes from the container.
	// Defaults to Disabled. Enabled needs nodes whose kernel, runtime and kubelet have them; on any other a bot does
	// not start. Its pod then runs as user 65530 of its own namespace, which the node maps to ids that nobody else has.
	// +optional
	// +kubebuilder:default=Disabled
	UserNamespaces UserNamespaces `json:"userNamespaces,omitempty"`

	// egress opens addresses, private ones too, to every bot and sweep of the tenant. It is the platform's side of
	// the door: a bot can never open a private address by itself. Nobody opens the node itself (loopback, link-local)
	// or a cloud's metadata service: what lies in a larger block stays closed.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:XValidation:rule="!isCIDR(self.cidr) || !['0.0.0.0/8','100.100.100.200/32','127.0.0.0/8','168.63.129.16/32','169.254.0.0/16','192.0.0.192/32','255.255.255.255/32','::/64','64:ff9b::/104','64:ff9b::6464:64c8/128','64:ff9b::7f00:0/104','64:ff9b::a83f:8110/128','64:ff9b::a9fe:0/112','64:ff9b::c000:c0/128','64:ff9b::ffff:ffff/128','64:ff9b:1::/48','2001::/32','2002::/16','fd00:42::42/128','fd00:ec2::/32','fd20:ce::254/128','fe80::/10'].exists(p, cidr(p).containsCIDR(cidr(self.cidr)))",message="nobody opens this block: it is the node itself, a metadata service, or a form of IPv6 that hides an IPv4 address",fieldPath=".cidr"
	Egress []EgressRule `json:"egress,omitempty"`

	// egressCeiling bounds what the tenant's bots open by themselves, with spec.egress and with channels that bring
	// their own addresses: of what lies beyond it nothing is opened, and the bot says so (EgressBeyondCeiling). Left
	// out, that is the public internet. It bounds neither spec.egress here nor what the stores of the tenant are
	// swept through.
	// +optional
	EgressCeiling *EgressCeiling `json:"egressCeiling,omitempty"`

	// foreignNetworkPolicies are network policies in the tenant's namespaces that are not Lethe's and are meant to be
	// there. One that is not named here keeps the tenant's bots from starting (ForeignNetworkPolicy), since policies
	// add up.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=32
	ForeignNetworkPolicies []ForeignNetworkPolicy `json:"foreignNetworkPolicies,omitempty"`

	// foreignObjects are Services, pods and workloads that were in the tenant's namespaces before Lethe isolated them
	// and are meant to stay. One that is not named here keeps the tenant's bots from starting (ForeignObject).
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=32
	ForeignObjects []ForeignObject `json:"foreignObjects,omitempty"`

	// access of the tenant's people.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=16
	Access []TenantAccess `json:"access,omitempty"`

	// retainedVolumes says what volumes of deleted bots mean when the Tenant is to be deleted. Defaults to Protect:
	// it is refused while there are any. Release says that nobody needs them: those in namespaces that Lethe made are
	// deleted with these, and those in adopted namespaces stay, where no later Tenant's bot can take them over.
	// +optional
	// +kubebuilder:default=Protect
	RetainedVolumes RetainedVolumesPolicy `json:"retainedVolumes,omitempty"`

	// retentionOverrides shorten windows for this tenant; they can never lengthen one.
	// +optional
	// +listType=map
	// +listMapKey=dataClass
	// +kubebuilder:validation:MaxItems=32
	RetentionOverrides []RetentionOverride `json:"retentionOverrides,omitempty"`
}

// Tenant is one customer of the host company: its namespaces, its limits, its keys.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,categories=lethe
// +kubebuilder:printcolumn:name="Class",type=string,JSONPath=`.spec.class`
// +kubebuilder:printcolumn:name="State",type=string,JSONPath=`.spec.state`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Retained",type=integer,priority=1,JSONPath=`.status.retainedVolumes.count`
// +kubebuilder:printcolumn:name="KEK",type=string,priority=1,JSONPath=`.status.kekGrade`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="size(self.metadata.name) <= 63",message="metadata.name of a Tenant is used as a label value: at most 63 characters"
type Tenant struct {
	metav1.TypeMeta `json:",inline"`
	// metadata of the object.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec is what is asked for.
	// +required
	Spec TenantSpec `json:"spec,omitzero"`

	// status is what was observed. An object begins with one that says that nobody has looked at it, so that nothing
	// takes it for ready, whether the manager runs or not.
	// +optional
	// +kubebuilder:default={"observedGeneration":-1,"conditions":{{"type":"Ready","status":"Unknown","reason":"Pending","message":"Waiting for the manager to look at it.","lastTransitionTime":"1970-01-01T00:00:00Z"},{"type":"Reconciling","status":"True","reason":"Pending","message":"See condition Ready.","lastTransitionTime":"1970-01-01T00:00:00Z"},{"type":"NamespacesReady","status":"Unknown","reason":"Pending","message":"See condition Ready.","lastTransitionTime":"1970-01-01T00:00:00Z"},{"type":"IsolationReady","status":"Unknown","reason":"Pending","message":"See condition Ready.","lastTransitionTime":"1970-01-01T00:00:00Z"},{"type":"KeysReady","status":"Unknown","reason":"Pending","message":"See condition Ready.","lastTransitionTime":"1970-01-01T00:00:00Z"},{"type":"ChangesPaused","status":"Unknown","reason":"Pending","message":"See condition Ready.","lastTransitionTime":"1970-01-01T00:00:00Z"},{"type":"InUse","status":"Unknown","reason":"Pending","message":"See condition Ready.","lastTransitionTime":"1970-01-01T00:00:00Z"}}}
	Status TenantStatus `json:"status,omitzero"`
}

// TenantList is a list of tenants.
//
// +kubebuilder:object:root=true
type TenantList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Tenant `json:"items"`
}
