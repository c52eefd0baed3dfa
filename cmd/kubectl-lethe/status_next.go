package main

import (
	"regexp"
	"strings"

	"github.com/lethe-dev/lethe/internal/resources"
)

// What bots and stores are looked at with where the message says which element of the spec it is.
const (
	describePod = "kubectl -n NAMESPACE describe pod POD"
	readSpec    = "kubectl -n NAMESPACE get KIND NAME -o yaml"
	ownPods     = "kubectl -n lethe-system get pods"
	ownVersions = "kubectl -n lethe-system get deployments -o wide"

	describeSweeps = "kubectl -n NAMESPACE describe pods -l lethe.dev/store=NAME"
)

// nextCommands are the command to go on with, by the reason of a condition. OBJECT stands for namespace/name,
// NAMESPACE, NAME and TENANT for themselves, CONTAINER for -c and the container that the message names, unless that
// is the bot's own, and NODE for the node that it names. Where a kind has another one, it stands under kind/reason. A
// reason that a person has to do something about has one (TestEveryReasonHasItsNextStep); what has none is described.
var nextCommands = map[string]string{
	"Pending":                   ownPods,
	"KeyserverUnavailable":      ownPods,
	"KEKUnavailable":            "kubectl -n lethe-system logs deployment/lethe-keyserver",
	"KeyMissing":                "kubectl lethe keys restore FILE",
	"KeysAltered":               "kubectl lethe keys restore FILE",
	"KeysRolledBack":            "kubectl lethe keys restore FILE",
	"KeysChoice":                "kubectl lethe keys pending",
	"NoTenant":                  "kubectl get tenants",
	"TenantNotReady":            "kubectl lethe status tenant TENANT",
	"TenantSuspended":           "kubectl lethe status tenant TENANT",
	"ForeignObject":             "kubectl lethe status tenant TENANT",
	"ForeignNetworkPolicy":      "kubectl lethe status tenant TENANT",
	"EgressBeyondCeiling":       "kubectl get tenant TENANT -o yaml",
	"QuotaExceeded":             "kubectl -n NAMESPACE describe resourcequota",
	"NameTaken":                 "kubectl -n NAMESPACE get all,configmaps,secrets,serviceaccounts",
	"WrongPlace":                "kubectl lethe seal --bot OBJECT --credential CREDENTIAL",
	"UnknownKey":                "kubectl lethe seal --bot OBJECT --credential CREDENTIAL",
	"DoesNotOpen":               "kubectl lethe seal --bot OBJECT --credential CREDENTIAL",
	"Malformed":                 "kubectl lethe seal --bot OBJECT --credential CREDENTIAL",
	"RolledBack":                "kubectl lethe seal --bot OBJECT --credential CREDENTIAL",
	"VersionReused":             "kubectl lethe seal --bot OBJECT --credential CREDENTIAL",
	"PlaintextInSpec":           "kubectl lethe seal --bot OBJECT --credential CREDENTIAL",
	"PlaintextInSecret":         "kubectl lethe seal --bot OBJECT --credential CREDENTIAL",
	"SecretMissing":             "kubectl -n NAMESPACE get secrets",
	"ChannelTaken":              "kubectl get bots -A",
	"CrashLoopBackOff":          "kubectl lethe logs OBJECT --previous CONTAINER",
	"Completed":                 "kubectl lethe logs OBJECT --previous CONTAINER",
	"LivenessProbeFailed":       "kubectl lethe logs OBJECT --previous CONTAINER",
	"StartupProbeFailed":        "kubectl lethe logs OBJECT --previous CONTAINER",
	"OOMKilled":                 "kubectl lethe logs OBJECT --previous CONTAINER",
	"PodNotReady":               "kubectl lethe logs OBJECT CONTAINER",
	"CredentialsNotFetched":     "kubectl lethe logs OBJECT -c unseal",
	"UnknownStoreType":          readSpec,
	"TooManyTenants":            "kubectl get tenants -o yaml",
	"ImagePullBackOff":          describePod,
	"ImageNotFound":             describePod,
	"RegistryUnavailable":       describePod,
	"SignatureValidationFailed": readSpec,
	"InvalidImageName":          readSpec,
	"ErrImageNeverPull":         readSpec,
	"ImagePullUnauthorized":     "kubectl -n NAMESPACE get secrets --field-selector type=kubernetes.io/dockerconfigjson",
	"ContainerCannotStart":      describePod,
	"Evicted":                   describePod,
	"NodeShutdown":              "kubectl get nodes",
	"PodSandboxFailed":          describePod,
	"Unschedulable":             describePod,
	"PodTerminating":            describePod,
	"PodMissing":                "kubectl -n NAMESPACE describe statefulset STATEFULSET",
	"PodRefused":                "kubectl -n NAMESPACE describe statefulset STATEFULSET",
	"PodMismatch":               "kubectl get mutatingwebhookconfigurations",
	"NodeLost":                  "kubectl describe node NODE",
	"UpdateStopped":             "kubectl lethe status bots -A",
	"AnnotationNotAllowed":      readSpec,
	"DNSOutOfReach":             "kubectl -n lethe-system logs deployment/lethe-manager",
	"VolumeNotMounted":          "kubectl -n NAMESPACE describe persistentvolumeclaims",

	"CreateContainerConfigError": describePod, "CreateContainerError": describePod, "RunContainerError": describePod,
	"PreCreateHookError": describePod, "PreStartHookError": describePod, "PostStartHookError": describePod,
	"KeyserverAddressUnknown": "kubectl -n lethe-system get service lethe-keyserver -o yaml",

	"SecretNotShared": "kubectl -n NAMESPACE get secrets",
	"ForeignSecret":   "kubectl -n NAMESPACE get secrets",
	"NoVariable":      readSpec,
	"TooLarge":        readSpec,
	"FileMissing":     "kubectl -n NAMESPACE get configmaps",
	"FileNotShared":   "kubectl -n NAMESPACE get configmaps",
	"FileRefused":     readSpec,
	"TimeZoneUnknown": readSpec,

	"NotIsolated":          "kubectl lethe status tenant TENANT",
	"TenantDeleting":       "kubectl lethe status tenant TENANT",
	"UIDRangeTaken":        "kubectl get tenants -o yaml",
	"NoUIDRange":           ownVersions,
	"BadRequest":           ownVersions,
	"Unauthenticated":      ownVersions,
	"NotFound":             ownVersions,
	"Internal":             "kubectl -n lethe-system logs deployment/lethe-keyserver",
	"Forbidden":            "kubectl describe clusterrole lethe-manager",
	"Refused":              "kubectl -n NAMESPACE describe KIND NAME",
	"Revoked":              "kubectl describe tenant TENANT",
	"NamespaceReserved":    "kubectl get tenant TENANT -o yaml",
	"UpdateHeld":           "kubectl get runtimeclasses,priorityclasses",
	"ClassMissing":         "kubectl get runtimeclasses,priorityclasses",
	"ForeignVolume":        "kubectl -n NAMESPACE get persistentvolumeclaims",
	"VolumeMissing":        "kubectl -n NAMESPACE get persistentvolumeclaims",
	"VolumeDiffers":        "kubectl -n NAMESPACE get persistentvolumeclaims",
	"NamespaceTaken":       "kubectl get namespaces -L lethe.dev/tenant",
	"NamespaceInUse":       "kubectl get bots,stores -A",
	"ExternalIDTaken":      "kubectl get tenants -o yaml",
	"PodSecurityOverruled": "kubectl get namespaces --show-labels",
	"BudgetExceeded":       "kubectl get events -A",

	"AwaitingApproval":     "kubectl lethe plan OBJECT, then kubectl lethe approve OBJECT",
	"BacklogSpent":         "kubectl lethe plan OBJECT, then kubectl lethe approve OBJECT --brake DATASET",
	"IdentityChanged":      "kubectl lethe approve OBJECT --database",
	"RestoredFrom":         "kubectl lethe approve OBJECT --database",
	"Ungoverned":           "kubectl get dataretentionpolicies -o yaml",
	"UndeclaredRelation":   "kubectl lethe explain OBJECT",
	"UncoveredTable":       "kubectl lethe explain OBJECT",
	"UnknownAge":           "kubectl lethe explain OBJECT",
	"UnknownTenant":        "kubectl lethe explain OBJECT",
	"PlanProblem":          "kubectl lethe plan OBJECT",
	"PlanTooLarge":         "kubectl lethe plan OBJECT",
	"LimitReached":         "kubectl lethe plan OBJECT",
	"Overdue":              "kubectl lethe plan OBJECT",
	"DatasetsRefused":      "kubectl lethe explain OBJECT",
	"NotMeasured":          "kubectl lethe logs --store OBJECT",
	"Stale":                "kubectl lethe logs --store OBJECT",
	"SweepFailed":          "kubectl lethe logs --store OBJECT",
	"ReportLost":           "kubectl lethe logs --store OBJECT",
	"ReportForged":         "kubectl -n lethe-keys get configmaps,leases",
	"ReportReplayed":       "kubectl -n lethe-keys get configmaps,leases",
	"StoreError":           "kubectl lethe logs --store OBJECT",
	"Unreachable":          "kubectl lethe logs --store OBJECT",
	"NoSCRAM":              "kubectl lethe logs --store OBJECT",
	"UntrustedCertificate": "kubectl lethe logs --store OBJECT",
	"UnsupportedServer":    "kubectl lethe logs --store OBJECT",
	"ClockSkew":            "kubectl lethe logs --store OBJECT",
	"PlanMismatch":         "kubectl lethe logs --store OBJECT",
	"PlanExpired":          "kubectl lethe logs --store OBJECT",
	"LeaseRefused":         "kubectl -n lethe-system logs deployment/lethe-keyserver",
	"TenantsUnknown":       "kubectl -n lethe-system logs deployment/lethe-keyserver",
	"LeaseLost":            "kubectl -n lethe-system logs deployment/lethe-keyserver",
	"MissingTable":         "kubectl lethe explain OBJECT",
	"MissingColumn":        "kubectl lethe explain OBJECT",
	"WrongAgeType":         "kubectl lethe explain OBJECT",
	"UnknownTimeZone":      "kubectl lethe explain OBJECT",
	"KeyNotUnique":         "kubectl lethe explain OBJECT",
	"MissingPrivilege":     "kubectl lethe grants OBJECT",
	"UnsupportedTable":     "kubectl lethe explain OBJECT",
	"UnclearTenant":        "kubectl lethe explain OBJECT",
	"RelationType":         "kubectl lethe explain OBJECT",
	"SharedRefused":        "kubectl get tenant TENANT -o yaml",
	"WrongPassword":        "kubectl lethe seal --store OBJECT",
	"NoSuchDatabase":       "kubectl lethe seal --store OBJECT",
	"NoStore":              "kubectl get datastores -A --show-labels",
	"NotVerified":          "kubectl lethe verify --policy NAME",
	"RuleRefused":          "kubectl get dataretentionpolicy NAME -o yaml",
	"DataStore/WrongPlace": "kubectl lethe seal --store OBJECT", "DataStore/UnknownKey": "kubectl lethe seal --store OBJECT", "DataStore/DoesNotOpen": "kubectl lethe seal --store OBJECT",
	"DataStore/Malformed": "kubectl lethe seal --store OBJECT", "DataStore/RolledBack": "kubectl lethe seal --store OBJECT", "DataStore/VersionReused": "kubectl lethe seal --store OBJECT",
	"DataStore/Internal": "kubectl lethe logs --store OBJECT", "DataStore/ImagePullBackOff": describeSweeps, "DataStore/ImageNotFound": describeSweeps, "DataStore/RegistryUnavailable": describeSweeps,
	"DataStore/SignatureValidationFailed": describeSweeps, "DataStore/InvalidImageName": describeSweeps, "DataStore/ErrImageNeverPull": describeSweeps,
	"DataRetentionPolicy/Overdue": "kubectl lethe verify --policy NAME",
	"Tenant/ForeignObject":        "kubectl get tenant TENANT -o yaml",
	"Tenant/ForeignNetworkPolicy": "kubectl get tenant TENANT -o yaml",
	"Tenant/QuotaExceeded":        "kubectl describe tenant TENANT",
}

// What messages of conditions name.
var (
	namedContainer = regexp.MustCompile(`^Container ([a-z0-9](?:[-a-z0-9]*[a-z0-9])?)\b`)
	namedNode      = regexp.MustCompile(`^Node ([a-z0-9](?:[-a-z0-9.]*[a-z0-9])?)\b`)
)

// next is the command to go on with, for a reason and the message beside it.
func (r *objectReport) next(tenant, reason, message string) string {
	command, ok := nextCommands[r.Kind+"/"+reason]
	if !ok {
		command, ok = nextCommands[reason]
	}
	container, node := "", ""
	if named := namedContainer.FindStringSubmatch(message); named != nil && named[1] != resources.ContainerBot {
		container = " -c " + named[1]
	}
	if named := namedNode.FindStringSubmatch(message); named != nil {
		node = named[1]
	}
	lacks := func(word, value string) bool { return value == "" && strings.Contains(command, word) }
	if !ok || lacks("TENANT", tenant) || lacks("NODE", node) || lacks("NAMESPACE", r.Namespace) {
		command = "kubectl -n NAMESPACE describe KIND NAME"
		if r.Namespace == "" {
			command = "kubectl describe KIND NAME"
		}
	}
	words := []string{"OBJECT", r.where(), "NAMESPACE", r.Namespace, "NAME", r.Name, "TENANT", tenant, "KIND", strings.ToLower(r.Kind), " CONTAINER", container, "NODE", node}
	if r.Kind == resources.KindBotDeployment {
		words = append(words, "STATEFULSET", resources.BotName(r.Name), "POD", resources.BotPodName(r.Name))
	}
	return strings.NewReplacer(words...).Replace(command)
}
