package resources

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/netblocks"
)

// Namespace is a namespace of a tenant. Pods in it must meet the restricted Pod Security Standard. created says that
// the manager makes it, and removes it with the Tenant.
func Namespace(tenant *v1alpha1.Tenant, name string, created bool) *corev1.Namespace {
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name: name,
		Labels: map[string]string{
			v1alpha1.LabelTenant:                         tenant.Name,
			"pod-security.kubernetes.io/enforce":         "restricted",
			"pod-security.kubernetes.io/enforce-version": "latest",
		},
	}}
	if created {
		namespace.Annotations = map[string]string{AnnotationCreatedFor: string(tenant.UID)}
	}
	return namespace
}

// TenantRoleBindings give the manager and the keyserver their rights in a namespace, and the tenant's people theirs.
// The manager's comes first, because it needs it for everything else.
func TenantRoleBindings(s Settings, tenant *v1alpha1.Tenant, namespace string) []*rbacv1.RoleBinding {
	return []*rbacv1.RoleBinding{
		roleBinding(tenant, namespace, BindingManager, RoleManagerTenant, serviceAccount(s.Namespace, ServiceAccountManager)),
		roleBinding(tenant, namespace, BindingKeyserver, RoleKeyserverTenant, serviceAccount(s.Namespace, ServiceAccountKeyserver)),
		roleBinding(tenant, namespace, BindingView, RoleTenantView, groups(tenant, v1alpha1.AccessView)...),
		roleBinding(tenant, namespace, BindingOperate, RoleTenantOperate, groups(tenant, v1alpha1.AccessOperate)...),
	}
}

// TenantResourceQuotas bound what the bots of a namespace use. Sweeps are not counted: a tenant that has used up its
// quota must not be able to stop its data from being deleted. Storage has a quota of its own, since Kubernetes does
// not let one that looks at priority classes count it; sweeps have no volumes and reserve nothing of a node's disk.
func TenantResourceQuotas(tenant *v1alpha1.Tenant, namespace string) []*corev1.ResourceQuota {
	quota := tenant.Spec.Quota
	if quota == nil {
		quota = &v1alpha1.TenantQuota{}
	}
	pods := int64(v1alpha1.DefaultQuotaPods)
	if quota.Pods != nil {
		pods = int64(*quota.Pods)
	}
	return []*corev1.ResourceQuota{
		{
			ObjectMeta: tenantMeta(tenant, namespace, QuotaName),
			Spec: corev1.ResourceQuotaSpec{
				Hard: corev1.ResourceList{
					corev1.ResourcePods:         *resource.NewQuantity(pods, resource.DecimalSI),
					corev1.ResourceLimitsCPU:    orDefault(quota.CPU, "20"),
					corev1.ResourceLimitsMemory: orDefault(quota.Memory, "40Gi"),
				},
				ScopeSelector: &corev1.ScopeSelector{MatchExpressions: []corev1.ScopedResourceSelectorRequirement{{
					ScopeName: corev1.ResourceQuotaScopePriorityClass,
					Operator:  corev1.ScopeSelectorOpNotIn,
					Values:    []string{PriorityClassSweeper},
				}}},
			},
		},
		{
			ObjectMeta: tenantMeta(tenant, namespace, QuotaStorageName),
			Spec: corev1.ResourceQuotaSpec{
				Hard: corev1.ResourceList{
					corev1.ResourceRequestsStorage:          orDefault(quota.Storage, "100Gi"),
					corev1.ResourceRequestsEphemeralStorage: MostDisk(tenant),
				},
			},
		},
		{
			ObjectMeta: tenantMeta(tenant, namespace, QuotaObjectsName),
			Spec:       corev1.ResourceQuotaSpec{Hard: objectCounts(quota)},
		},
	}
}

// objectCounts bound how many objects a namespace holds. Bots and stores are the Tenant's decision, and what only
// Lethe makes for them follows with room for those that are on their way out. Of what people with other roles may
// make too, they get no more than half (admission policy lethe-object-counts): the other half is Lethe's, so that
// nobody can stop its bots, its keys or its sweeps by filling up a namespace. Jobs and CronJobs are not counted for
// the same reason: nobody but Lethe and Kubernetes makes them here.
func objectCounts(quota *v1alpha1.TenantQuota) corev1.ResourceList {
	const others = 100 // objects of a kind that people with other roles may have, beside as many as Lethe needs
	bots, stores := int64(v1alpha1.DefaultQuotaBots), int64(v1alpha1.DefaultQuotaStores)
	if quota.Bots != nil {
		bots = int64(*quota.Bots)
	}
	if quota.Stores != nil {
		stores = int64(*quota.Stores)
	}
	counts := corev1.ResourceList{}
	for name, count := range map[corev1.ResourceName]int64{
		"count/botdeployments.lethe.dev":               bots,
		"count/datastores.lethe.dev":                   stores,
		"count/statefulsets.apps":                      2*bots + 10,
		"count/networkpolicies.networking.k8s.io":      2*(bots+stores) + others,
		"count/serviceaccounts":                        2 * (2*(bots+stores) + 20),
		"count/persistentvolumeclaims":                 2 * (2*bots + 10),
		"count/configmaps":                             2 * (4*stores + others),
		"count/secrets":                                2 * (4*(bots+stores) + others),
		"count/services":                               2 * 20,
		"count/roles.rbac.authorization.k8s.io":        2 * 20,
		"count/rolebindings.rbac.authorization.k8s.io": 2 * 20,
		"count/leases.coordination.k8s.io":             2 * 20,
		"count/poddisruptionbudgets.policy":            2 * 20,
		"count/ingresses.networking.k8s.io":            2 * 20,
		"count/endpointslices.discovery.k8s.io":        2 * 50,
		// Nothing that runs here is scaled, or may use a device.
		"count/horizontalpodautoscalers.autoscaling":   0,
		"count/resourceclaims.resource.k8s.io":         0,
		"count/resourceclaimtemplates.resource.k8s.io": 0,
		"count/podtemplates":                           0,
		"count/replicationcontrollers":                 0,
		"count/deployments.apps":                       0,
		"count/replicasets.apps":                       0,
		"count/daemonsets.apps":                        0,
	} {
		counts[name] = *resource.NewQuantity(count, resource.DecimalSI)
	}
	return counts
}

// TenantLimitRange gives containers that say nothing a share of the quota, and bounds what each may have of its
// node's disk.
func TenantLimitRange(tenant *v1alpha1.Tenant, namespace string) *corev1.LimitRange {
	return &corev1.LimitRange{
		ObjectMeta: tenantMeta(tenant, namespace, LimitRangeName),
		Spec: corev1.LimitRangeSpec{Limits: []corev1.LimitRangeItem{{
			Type: corev1.LimitTypeContainer,
			Default: corev1.ResourceList{
				corev1.ResourceCPU: resource.MustParse(DefaultCPULimit), corev1.ResourceMemory: resource.MustParse(DefaultMemoryLimit),
				corev1.ResourceEphemeralStorage: resource.MustParse("1Gi"),
			},
			DefaultRequest: corev1.ResourceList{
				corev1.ResourceCPU: resource.MustParse(DefaultCPURequest), corev1.ResourceMemory: resource.MustParse(DefaultMemoryRequest),
				corev1.ResourceEphemeralStorage: reservedOf(resource.MustParse("1Gi")),
			},
			Max: corev1.ResourceList{corev1.ResourceEphemeralStorage: MostDisk(tenant)},
		}}},
	}
}

// TenantNetworkPolicies close a namespace in both directions and open what every bot and sweep needs: the cluster's DNS
// pods, the keyserver's pods, and what the Tenant's egress says, never the
// node itself or a metadata service.
func TenantNetworkPolicies(s Settings, tenant *v1alpha1.Tenant, namespace string) []*networkingv1.NetworkPolicy {
	both := []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress}
	egress := []networkingv1.PolicyType{networkingv1.PolicyTypeEgress}
	return []*networkingv1.NetworkPolicy{
		{
			ObjectMeta: tenantMeta(tenant, namespace, PolicyDefaultDeny),
			Spec:       networkingv1.NetworkPolicySpec{PolicyTypes: both},
		},
		{
			ObjectMeta: tenantMeta(tenant, namespace, PolicyKeyserver),
			Spec: networkingv1.NetworkPolicySpec{
				PodSelector: ourPods(),
				PolicyTypes: egress,
				Egress: []networkingv1.NetworkPolicyEgressRule{{
					To:    podsOf(s.Namespace, map[string]string{LabelName: NameLethe, v1alpha1.LabelComponent: ComponentKeyserver}),
					Ports: []networkingv1.NetworkPolicyPort{policyPort(corev1.ProtocolTCP, KeyserverPort)},
				}},
			},
		},
		{
			ObjectMeta: tenantMeta(tenant, namespace, PolicyEgress),
			Spec: networkingv1.NetworkPolicySpec{
				PodSelector: ourPods(),
				PolicyTypes: egress,
				Egress:      egressRules(tenant.Spec.Egress, s.closed(netblocks.ClosedToAll())),
			},
		},
	}
}

// TenantPolicies are the names of a Tenant's policies in each of its namespaces.
func TenantPolicies() []string { return []string{PolicyDefaultDeny, PolicyKeyserver, PolicyEgress} }

// TenantCABundle is the copy of the keyserver's CA certificates that pods mount, with the addresses that a pod
// without DNS finds it by. Changing it restarts no pod.
func TenantCABundle(tenant *v1alpha1.Tenant, namespace, bundle, addresses string) *corev1.ConfigMap {
	return &corev1.ConfigMap{
		ObjectMeta: tenantMeta(tenant, namespace, CABundleName),
		Data:       map[string]string{CABundleKey: bundle, AddressesKey: addresses},
	}
}

// MostDisk is what one container of a Tenant may have of its node's disk, and what all pods of a namespace may
// reserve together.
func MostDisk(tenant *v1alpha1.Tenant) resource.Quantity {
	if tenant.Spec.Quota == nil {
		return resource.MustParse(defaultDisk)
	}
	return orDefault(tenant.Spec.Quota.EphemeralStorage, defaultDisk)
}

const defaultDisk = "20Gi"

func roleBinding(tenant *v1alpha1.Tenant, namespace, name, role string, subjects ...rbacv1.Subject) *rbacv1.RoleBinding {
	return &rbacv1.RoleBinding{
		ObjectMeta: tenantMeta(tenant, namespace, name),
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
		Subjects:   subjects,
	}
}

func serviceAccount(namespace, name string) rbacv1.Subject {
	return rbacv1.Subject{Kind: rbacv1.ServiceAccountKind, Namespace: namespace, Name: name}
}

func groups(tenant *v1alpha1.Tenant, role v1alpha1.AccessRole) []rbacv1.Subject {
	var subjects []rbacv1.Subject
	for _, access := range tenant.Spec.Access {
		if access.Role == role {
			subjects = append(subjects, rbacv1.Subject{APIGroup: rbacv1.GroupName, Kind: rbacv1.GroupKind, Name: access.Group})
		}
	}
	return subjects
}

func tenantMeta(tenant *v1alpha1.Tenant, namespace, name string) metav1.ObjectMeta {
	return meta(namespace, name, Labels(ComponentIsolation), OwnerReference(tenant, KindTenant))
}

// ourPods selects bots and sweeps.
func ourPods() metav1.LabelSelector {
	return metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{
		Key: v1alpha1.LabelComponent, Operator: metav1.LabelSelectorOpIn, Values: []string{ComponentBot, ComponentSweeper},
	}}}
}

func podsOf(namespace string, labels map[string]string) []networkingv1.NetworkPolicyPeer {
	return []networkingv1.NetworkPolicyPeer{{
		NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: namespace}},
		PodSelector:       &metav1.LabelSelector{MatchLabels: labels},
	}}
}

func orDefault(quantity *resource.Quantity, fallback string) resource.Quantity {
	if quantity != nil {
		return *quantity
	}
	return resource.MustParse(fallback)
}

// KeysDiffer says whether the keyserver's ConfigMap in the manager's namespace names a Tenant.
func KeysDiffer(bundle *corev1.ConfigMap, tenant types.UID) bool {
	text := bundle.Data[DifferingKey]
	return text == DifferingAll || slices.Contains(strings.Split(text, "\n"), string(tenant))
}
