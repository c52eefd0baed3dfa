package main

import (
	"strings"

	"github.com/lethe-dev/lethe/internal/resources"
)

// nextCommands are the command to go on with, by the reason of a condition. OBJECT stands for namespace/name, NAMESPACE, NAME and TENANT for themselves. Where a kind
// has another one, it stands under kind/reason. What has none is described.
var nextCommands = map[string]string{
	"Pending":               "kubectl -n lethe-system get pods",
	"KeyserverUnavailable":  "kubectl -n lethe-system get pods",
	"KEKUnavailable":        "kubectl -n lethe-system logs deployment/lethe-keyserver",
	"KeyMissing":            "kubectl lethe keys restore FILE",
	"KeysAltered":           "kubectl lethe keys restore FILE",
	"KeysRolledBack":        "kubectl lethe keys restore FILE",
	"KeysChoice":            "kubectl lethe keys pending",
	"NoTenant":              "kubectl get tenants",
	"TenantNotReady":        "kubectl lethe status tenant TENANT",
	"TenantSuspended":       "kubectl lethe status tenant TENANT",
	"ForeignObject":         "kubectl lethe status tenant TENANT",
	"ForeignNetworkPolicy":  "kubectl lethe status tenant TENANT",
	"EgressBeyondCeiling":   "kubectl get tenant TENANT -o yaml",
	"QuotaExceeded":         "kubectl -n NAMESPACE describe resourcequota",
	"NameTaken":             "kubectl -n NAMESPACE get all,configmaps,secrets,serviceaccounts",
	"WrongPlace":            "kubectl lethe seal --bot OBJECT --credential CREDENTIAL",
	"UnknownKey":            "kubectl lethe seal --bot OBJECT --credential CREDENTIAL",
	"DoesNotOpen":           "kubectl lethe seal --bot OBJECT --credential CREDENTIAL",
	"Malformed":             "kubectl lethe seal --bot OBJECT --credential CREDENTIAL",
	"RolledBack":            "kubectl lethe seal --bot OBJECT --credential CREDENTIAL",
	"VersionReused":         "kubectl lethe seal --bot OBJECT --credential CREDENTIAL",
	"PlaintextInSpec":       "kubectl lethe seal --bot OBJECT --credential CREDENTIAL",
	"PlaintextInSecret":     "kubectl lethe seal --bot OBJECT --credential CREDENTIAL",
	"SecretMissing":         "kubectl -n NAMESPACE get secrets",
	"ChannelTaken":          "kubectl get bots -A",
	"CrashLoopBackOff":      "kubectl lethe logs OBJECT --previous",
	"PodNotReady":           "kubectl lethe logs OBJECT",
	"CredentialsNotFetched": "kubectl lethe logs OBJECT -c unseal",
	"ImagePullBackOff":      "kubectl -n NAMESPACE describe pod POD",
	"RegistryUnavailable":   "kubectl -n NAMESPACE describe pod POD",
	"ImagePullUnauthorized": "kubectl -n NAMESPACE get secrets --field-selector type=kubernetes.io/dockerconfigjson",
	"Unschedulable":         "kubectl -n NAMESPACE describe pod POD",
	"OldPodEnding":          "kubectl -n NAMESPACE describe pod POD",
	"PodMissing":            "kubectl -n NAMESPACE describe statefulset STATEFULSET",
	"ForeignVolume":         "kubectl -n NAMESPACE get persistentvolumeclaims",
	"VolumeMissing":         "kubectl -n NAMESPACE get persistentvolumeclaims",
	"VolumeDiffers":         "kubectl -n NAMESPACE get persistentvolumeclaims",
	"NamespaceTaken":        "kubectl get namespaces -L lethe.dev/tenant",
	"NamespaceInUse":        "kubectl get bots,stores -A",
	"ExternalIDTaken":       "kubectl get tenants -o yaml",
	"PodSecurityOverruled":  "kubectl get namespaces --show-labels",
	"BudgetExceeded":        "kubectl get events -A",

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
	"StoreError":           "kubectl lethe logs --store OBJECT",
	"Unreachable":          "kubectl lethe logs --store OBJECT",
	"WrongPassword":        "kubectl lethe seal --store OBJECT",
	"NoSuchDatabase":       "kubectl lethe seal --store OBJECT",
	"NoStore":              "kubectl get datastores -A --show-labels",
	"Unproven":             "kubectl lethe verify --policy NAME",
	"RuleRefused":          "kubectl get dataretentionpolicy NAME -o yaml",
	"DataStore/WrongPlace": "kubectl lethe seal --store OBJECT", "DataStore/UnknownKey": "kubectl lethe seal --store OBJECT", "DataStore/DoesNotOpen": "kubectl lethe seal --store OBJECT",
	"DataStore/Malformed": "kubectl lethe seal --store OBJECT", "DataStore/RolledBack": "kubectl lethe seal --store OBJECT", "DataStore/VersionReused": "kubectl lethe seal --store OBJECT",
	"DataRetentionPolicy/Overdue": "kubectl lethe verify --policy NAME",
	"Tenant/ForeignObject":        "kubectl get tenant TENANT -o yaml",
	"Tenant/ForeignNetworkPolicy": "kubectl get tenant TENANT -o yaml",
	"Tenant/QuotaExceeded":        "kubectl describe tenant TENANT",
}

// next is the command to go on with.
func (r *objectReport) next(tenant, reason string) string {
	command, ok := nextCommands[r.Kind+"/"+reason]
	if !ok {
		command, ok = nextCommands[reason]
	}
	if !ok || (tenant == "" && strings.Contains(command, "TENANT")) {
		command = "kubectl -n NAMESPACE describe KIND NAME"
		if r.Namespace == "" {
			command = "kubectl describe KIND NAME"
		}
	}
	words := []string{"OBJECT", r.where(), "NAMESPACE", r.Namespace, "NAME", r.Name, "TENANT", tenant, "KIND", strings.ToLower(r.Kind)}
	if r.Kind == resources.KindBotDeployment {
		words = append(words, "STATEFULSET", resources.BotName(r.Name), "POD", resources.BotPodName(r.Name))
	}
	return strings.NewReplacer(words...).Replace(command)
}
