package v1alpha1

// Condition types. Ready, Reconciling and Stalled have the meaning that kstatus gives them: Ready says whether the
// object is in force as it is written; Reconciling is True while the controller still works towards that, or while it
// comes right by itself; Stalled is True when it cannot go on until a person changes something. Reconciling and
// Stalled are there only while they are True. The status of a new object says that nobody has looked at it. A message
// stands in one condition, which others name.
const (
	ConditionReady       = "Ready"
	ConditionReconciling = "Reconciling"
	ConditionStalled     = "Stalled"

	// ConditionNamespacesReady (Tenant): every namespace exists, is the tenant's, and is isolated.
	ConditionNamespacesReady = "NamespacesReady"
	// ConditionKeysReady (Tenant): the tenant's keys exist and open; status.sealingKeys can be sealed to.
	ConditionKeysReady = "KeysReady"

	// ConditionInUse (Tenant): a BotDeployment or DataStore is in one of its namespaces; admission then refuses its
	// deletion.
	ConditionInUse = "InUse"

	// ConditionChangesPaused (Tenant): more was written to its bots and stores than etcd is meant to hold of one
	// Tenant; admission refuses further changes until the time that the annotation AnnotationChangesPaused of its
	// namespaces names.
	ConditionChangesPaused = "ChangesPaused"

	// ConditionIsolationReady (BotDeployment): ServiceAccount and NetworkPolicy are in place.
	ConditionIsolationReady = "IsolationReady"
	// ConditionCredentialsReady (BotDeployment, DataStore): every credential was opened and encrypted at rest.
	ConditionCredentialsReady = "CredentialsReady"
	// ConditionWorkloadReady (BotDeployment): the pod of the present revision is ready.
	ConditionWorkloadReady = "WorkloadReady"

	// ConditionReachable (DataStore): the last sweep or measurement talked to the store over verified TLS.
	ConditionReachable = "Reachable"
	// ConditionCoverageComplete (DataStore): every table of the store is named by a dataset or exempt with a reason,
	// and every dataset is governed by a rule.
	ConditionCoverageComplete = "CoverageComplete"
	// ConditionApproved (DataStore): spec.approvedPlan covers what the plan could delete.
	ConditionApproved = "Approved"
	// ConditionCompliant (DataStore, DataRetentionPolicy): measured recently and nothing is overdue. Unknown is
	// failing.
	ConditionCompliant = "Compliant"
)

// Labels, annotations and finalizers. The prefix lethe.dev/ is reserved: what a user writes under it is ignored or
// refused.
const (
	// LabelTenant on a Namespace says whose it is. Only the manager, or someone allowed the verb "adopt" on
	// tenants.lethe.dev, may set, change or remove it (admission policy lethe-namespace-label).
	LabelTenant = "lethe.dev/tenant"
	// AnnotationCredentials on a pod template names the encrypted Secret that the pod's credentials come from, so
	// that a new set of credentials is a new revision.
	AnnotationCredentials = "lethe.dev/credentials"
	// AnnotationCredentialFor on a Secret names the BotDeployments of its namespace that may have it by a
	// secretKeyRef, separated by commas, or "*" for all. Whoever may write Secrets there says so; who may write bots
	// alone cannot.
	AnnotationCredentialFor = "lethe.dev/credential-for"
	// AnnotationRendered on a bot's StatefulSet notes down what its template was made of: the bot's generation, a
	// digest of the template, and what of Lethe's own went into it. A manager that comes later knows by it whose
	// change a difference is.
	AnnotationRendered = "lethe.dev/rendered"
	// AnnotationRolling on a bot's StatefulSet says since when a ready bot is on its way because of a change of
	// Lethe's own. It goes when the bot has been ready again for a minute.
	AnnotationRolling = "lethe.dev/rolling"
	// AnnotationAdmitted on a StatefulSet or CronJob notes down that the cluster's admission changed it while it was
	// written: which field, and what it was that was asked for then.
	AnnotationAdmitted = "lethe.dev/admitted"

	// AnnotationFileFor on a ConfigMap names the bots, with commas between them, whose spec.files may have what is in
	// it; * stands for all of its namespace.
	AnnotationFileFor = "lethe.dev/file-for"

	// AnnotationFile begins the annotations of a bot's pod that hold the contents of its files, as spec.files has
	// them: numbers follow.
	AnnotationFile = "lethe.dev/file-"

	// AnnotationRestartedAt on a bot's pod is spec.restartedAt.
	AnnotationRestartedAt = "lethe.dev/restarted-at"
	// AnnotationOwnerUID on every child, and on the pods of bots and sweeps, records the UID of the object that it
	// was made for. It outlives the owner reference, which orphaning takes away: by it a child whose owner is gone is
	// known, and removed.
	AnnotationOwnerUID = "lethe.dev/owner-uid"
	// AnnotationTenantUID, AnnotationBotUID and AnnotationBot on a PersistentVolumeClaim record whose it is,
	// AnnotationReclaimPolicy what becomes of it with the bot. A claim is mounted only by the bot on record. The
	// manager writes them, and who is allowed the verb "adopt" on the Tenant (admission policy lethe-volumes).
	AnnotationTenantUID     = "lethe.dev/tenant-uid"
	AnnotationBotUID        = "lethe.dev/bot-uid"
	AnnotationBot           = "lethe.dev/bot"
	AnnotationReclaimPolicy = "lethe.dev/reclaim-policy"
	// AnnotationAdopt on a PersistentVolumeClaim holds the UID of a Tenant whose bots may take it over by
	// spec.storage.claim.existing although it is on record as somebody else's, or as nobody's. Only who is allowed
	// the verb "adopt" on the Tenant sets it.
	AnnotationAdopt = "lethe.dev/adopt"
	// AnnotationChangesPaused on a tenant's Namespace says until when (RFC 3339) admission refuses changes to bots
	// and stores there (admission policy lethe-changes-paused). The manager writes it and takes it away; who may
	// update the Tenant may take it away too.
	AnnotationChangesPaused = "lethe.dev/changes-paused-until"
	// AnnotationKeys on a Tenant with the value KeysNew says that it gets new keys, also where those of an earlier
	// Tenant that was the same wait for their destruction. The kid of a sealing key says that it gets those among
	// which that one is. Left out, the same external identifiers are asked for. Who makes a Tenant with anything but
	// KeysNew, or changes it, needs the verb "adopt" on it (admission policy lethe-tenant-keys).
	AnnotationKeys = "lethe.dev/sealing-keys"
	KeysNew        = "New"
	// LabelManagedBy with the value ManagedByLethe is on every child object; caches select by it.
	LabelManagedBy = "app.kubernetes.io/managed-by"
	ManagedByLethe = "lethe"
	// LabelBot, LabelStore name the owner on its children.
	LabelBot   = "lethe.dev/bot"
	LabelStore = "lethe.dev/store"
	// LabelComponent says which part a child is: bot, sweeper, isolation, plan, credentials.
	LabelComponent = "app.kubernetes.io/component"

	// FinalizerKeys is on a Tenant, BotDeployment or DataStore whose keys the keyserver holds.
	FinalizerKeys = "lethe.dev/keys"

	// SecretTypeEncrypted is the type of a Secret whose values are ciphertext; SecretTypeWrappedKey of one in
	// lethe-keys.
	SecretTypeEncrypted  = "lethe.dev/encrypted"
	SecretTypeWrappedKey = "lethe.dev/wrapped-key"

	// AudienceKeyserver is the audience of the projected tokens that pods and the manager show to the keyserver.
	AudienceKeyserver = "lethe.dev/keyserver"
)

// The ConfigMap in each tenant namespace that holds the key to seal to, the file in it, and that file's format.
const (
	SealingKeyConfigMap = "lethe-sealing-key"
	KeyFileName         = "tenant-key.yaml"
	KeyFileFormat       = "lethe.dev/tenant-key/v1"
)
