package v1alpha1

// All reasons stand here, each once: of conditions and Events, of what the keyserver answers, of what a sweep
// reports. A value is a part of the API and does not change; the comment says when it is used, and
// docs/reference/reasons.md is made of it. What follows from a reason stands in reason_facts.go, where each has its
// row.

// Of every kind.
const (
	// ReasonPending: nobody has looked at the object, or at its present spec, yet.
	ReasonPending = "Pending"
	// ReasonReady: it is in force as it is written.
	ReasonReady = "Ready"
	// ReasonProgressing: the controller works towards the spec.
	ReasonProgressing = "Progressing"
	// ReasonWaiting: an earlier step comes first; the condition that is named says more.
	ReasonWaiting = "Waiting"
	// ReasonDeleting: the object, or the namespace that it is in, is being deleted; the message says what that waits
	// for.
	ReasonDeleting = "Deleting"
	// ReasonNoTenant: the object's namespace belongs to no Tenant.
	ReasonNoTenant = "NoTenant"
	// ReasonTenantNotReady: the namespace's Tenant has not isolated it yet, or has no range of user ids.
	ReasonTenantNotReady = "TenantNotReady"
	// ReasonNameTaken: an object of a name that Lethe needs belongs to somebody else.
	ReasonNameTaken = "NameTaken"
	// ReasonRefused: the API server refuses a child that the spec leads to.
	ReasonRefused = "Refused"
	// ReasonForbidden: the manager lacks a right; or the keyserver knows who asks, and that is not its to ask.
	ReasonForbidden = "Forbidden"
	// ReasonQuotaExceeded: a quota leaves no room for a pod, a volume or another child.
	ReasonQuotaExceeded = "QuotaExceeded"
	// ReasonTerminating: something of the same name is still being deleted.
	ReasonTerminating = "Terminating"
	// ReasonRetrying: the API server could not be asked, or another client wrote the object at the same time.
	ReasonRetrying = "Retrying"
	// ReasonDNSOutOfReach: the walls, as the installation's settings make them, lie between pods and the cluster's DNS.
	ReasonDNSOutOfReach = "DNSOutOfReach"
	// ReasonOrphanRemoved: an Event: something of Lethe's had lost its owner, and was removed.
	ReasonOrphanRemoved = "OrphanRemoved"
	// ReasonTemplateChanged: an Event: this cluster's admission changes the template of a bot's or store's pods
	// whenever it is written.
	ReasonTemplateChanged = "TemplateChanged"
)

// Of Tenants.
const (
	// ReasonPodSecurityOverruled: another client sets other Pod Security labels on a namespace; Lethe's stand.
	ReasonPodSecurityOverruled = "PodSecurityOverruled"
	// ReasonNamespaceTaken: the namespace exists, and its label names nobody or another Tenant.
	ReasonNamespaceTaken = "NamespaceTaken"
	// ReasonNamespaceReserved: the namespace is the cluster's or Lethe's own.
	ReasonNamespaceReserved = "NamespaceReserved"
	// ReasonNamespaceInUse: a namespace that was taken off the list holds bots or stores.
	ReasonNamespaceInUse = "NamespaceInUse"
	// ReasonForeignNetworkPolicy: a foreign network policy, which the Tenant does not name, is in its namespaces. The
	// manager starts no bot then, and the keyserver gives no pod its credentials.
	ReasonForeignNetworkPolicy = "ForeignNetworkPolicy"
	// ReasonForeignObject: a Service, an EndpointSlice, a pod or what makes pods was in a namespace before the walls
	// were, is not Lethe's, and the Tenant does not name it. It means the same as a foreign network policy.
	ReasonForeignObject = "ForeignObject"
	// ReasonClassMissing: spec.placement names a RuntimeClass or a PriorityClass that the cluster does not have.
	ReasonClassMissing = "ClassMissing"
	// ReasonExternalIDTaken: another Tenant was the first to claim an external identifier of this one.
	ReasonExternalIDTaken = "ExternalIDTaken"
	// ReasonExternalIDContested: an Event: another Tenant claims an external identifier too, later than this one did,
	// which stays Ready.
	ReasonExternalIDContested = "ExternalIDContested"
	// ReasonKeysAvailable: the keyserver has the tenant's keys, and opens them.
	ReasonKeysAvailable = "KeysAvailable"
	// ReasonUIDRangeTaken: another Tenant has user ids of the same range.
	ReasonUIDRangeTaken = "UIDRangeTaken"
	// ReasonUIDRangeRestored: an Event: the status named another range of user ids than the keyserver has on record.
	ReasonUIDRangeRestored = "UIDRangeRestored"
	// ReasonHoldsBots: a BotDeployment or DataStore is in one of the namespaces.
	ReasonHoldsBots = "HoldsBotsOrStores"
	// ReasonHoldsVolumes: volumes of bots that are gone are left.
	ReasonHoldsVolumes = "HoldsVolumes"
	// ReasonEmpty: nothing is in the namespaces that a deletion would wait for.
	ReasonEmpty = "Empty"
	// ReasonWithinBudget: bots and stores can be changed.
	ReasonWithinBudget = "WithinBudget"
	// ReasonBudgetExceeded: more was written to the bots and stores than one Tenant may; changes are paused.
	ReasonBudgetExceeded = "BudgetExceeded"
	// ReasonHeld: an Event: an object in a namespace of a Tenant that is gone is kept by a finalizer that is not
	// Lethe's.
	ReasonHeld = "HeldByFinalizer"
)

// Of BotDeployments.
const (
	// ReasonIsolated: of a Tenant, every namespace is its own and isolated; of a bot, ServiceAccount and
	// NetworkPolicy are in place.
	ReasonIsolated = "Isolated"
	// ReasonEgressBeyondCeiling: the bot asks for more than its Tenant's egressCeiling lets through.
	ReasonEgressBeyondCeiling = "EgressBeyondCeiling"
	// ReasonAnnotationNotAllowed: the bot asks for an annotation that the installation does not let bots have.
	ReasonAnnotationNotAllowed = "AnnotationNotAllowed"
	// ReasonKeyserverAddressUnknown: a bot without DNS cannot be told where the keyserver is.
	ReasonKeyserverAddressUnknown = "KeyserverAddressUnknown"
	// ReasonPlaintext: a credential comes from a Secret, so its plaintext stands in etcd.
	ReasonPlaintext = "PlaintextInSecret"
	// ReasonPlaintextInSpec: what looks like a credential stands in the spec in plain text.
	ReasonPlaintextInSpec = "PlaintextInSpec"
	// ReasonRunning: the pod of the present revision is ready.
	ReasonRunning = "Running"
	// ReasonTenantSuspended: the Tenant stopped the bot, and that is as it is written.
	ReasonTenantSuspended = "TenantSuspended"
	// ReasonTenantDeleting: the Tenant is being deleted, which waits for the bot.
	ReasonTenantDeleting = "TenantDeleting"
	// ReasonTimeZoneUnknown: spec.timeZone is no zone that Lethe knows.
	ReasonTimeZoneUnknown = "TimeZoneUnknown"
	// ReasonRestartRequested: an Event: spec.restartedAt has changed, and the pod is replaced.
	ReasonRestartRequested = "RestartRequested"
	// ReasonUpdateWaits: the bot runs, and a change of Lethe's or of its Tenant's restarts it when its turn comes.
	ReasonUpdateWaits = "UpdateWaits"
	// ReasonUpdateStopped: the bot runs, and that change was stopped, since bots that were ready failed with it.
	ReasonUpdateStopped = "UpdateStopped"
	// ReasonUpdateHeld: a change, whoever's it is, would replace the pod by one that could never start.
	ReasonUpdateHeld = "UpdateHeld"
	// ReasonRolloutStopped: an Event: the bot was restarted because of Lethe, fails, and was one of those that
	// stopped that change.
	ReasonRolloutStopped = "RolloutStopped"
	// ReasonVolumeMissing: a PersistentVolumeClaim that existed, or that the spec names, does not exist.
	ReasonVolumeMissing = "VolumeMissing"
	// ReasonVolumeDiffers: the volume is not of the size or class that the spec says.
	ReasonVolumeDiffers = "VolumeDiffers"
	// ReasonVolumeKept: an Event: a volume that should go with its bot could not be deleted.
	ReasonVolumeKept = "VolumeKept"
)

// Of a bot's pod that is not ready, and of its containers.
const (
	// ReasonPodMissing: the pod was not made yet.
	ReasonPodMissing = "PodMissing"
	// ReasonPodNotReady: the pod is being started, or its probes do not succeed yet.
	ReasonPodNotReady = "PodNotReady"
	// ReasonPodTerminating: the pod before has not ended yet, or is not replaced yet.
	ReasonPodTerminating = "PodTerminating"
	// ReasonStopping: the bot is suspended, and its pod has not ended yet.
	ReasonStopping = "Stopping"
	// ReasonPodRefused: the API server, or a webhook, does not take the pod.
	ReasonPodRefused = "PodRefused"
	// ReasonUnschedulable: no node takes the pod.
	ReasonUnschedulable = "Unschedulable"
	// ReasonNodeLost: the node does not answer, and the pod may or may not still run there.
	ReasonNodeLost = "NodeLost"
	// ReasonNodeShutdown: the node shut down and ended the pod; another one is made.
	ReasonNodeShutdown = "NodeShutdown"
	// ReasonEvicted: the node, the scheduler or who empties nodes has ended the pod as a whole.
	ReasonEvicted = "Evicted"
	// ReasonVolumeNotMounted: a volume of the pod is not there yet.
	ReasonVolumeNotMounted = "VolumeNotMounted"
	// ReasonPodSandboxFailed: the container runtime or the network plugin does not make the pod.
	ReasonPodSandboxFailed = "PodSandboxFailed"
	// ReasonCredentialsNotFetched: the pod has not got its credentials from the keyserver yet.
	ReasonCredentialsNotFetched = "CredentialsNotFetched"
	// ReasonImagePullBackOff: the node does not get the image, for another reason than those below, or for one that
	// nobody tells.
	ReasonImagePullBackOff = "ImagePullBackOff"
	// ReasonImageNotFound: the registry has no image of that name, or none for the node's platform.
	ReasonImageNotFound = "ImageNotFound"
	// ReasonImagePullUnauthorized: the registry does not give the image to whoever asks.
	ReasonImagePullUnauthorized = "ImagePullUnauthorized"
	// ReasonRegistryUnavailable: the node does not get as far as the registry, or that one has trouble.
	ReasonRegistryUnavailable = "RegistryUnavailable"
	// ReasonSignatureInvalid: the node's own rules do not take the image's signature.
	ReasonSignatureInvalid = "SignatureValidationFailed"
	// ReasonInvalidImageName: what is asked for is not the name of an image.
	ReasonInvalidImageName = "InvalidImageName"
	// ReasonImageNeverPull: the image is not on the node, and is not to be pulled.
	ReasonImageNeverPull = "ErrImageNeverPull"
	// ReasonCreateContainerConfigError: Kubernetes' own: what a container is made with, a ConfigMap say, is not there
	// or is not as it must be.
	ReasonCreateContainerConfigError = "CreateContainerConfigError"
	// ReasonCreateContainerError: Kubernetes' own: the container runtime does not make a container.
	ReasonCreateContainerError = "CreateContainerError"
	// ReasonRunContainerError: Kubernetes' own: the container runtime does not start a container.
	ReasonRunContainerError = "RunContainerError"
	// ReasonPreCreateHookError: Kubernetes' own: a hook of the node fails before a container is made.
	ReasonPreCreateHookError = "PreCreateHookError"
	// ReasonPreStartHookError: Kubernetes' own: a hook of the node fails before a container is started.
	ReasonPreStartHookError = "PreStartHookError"
	// ReasonPostStartHookError: Kubernetes' own: a hook fails after a container is started.
	ReasonPostStartHookError = "PostStartHookError"
	// ReasonContainerCannotStart: the runtime cannot run the program at all.
	ReasonContainerCannotStart = "ContainerCannotStart"
	// ReasonCrashLoopBackOff: the program ended with an error or by a signal, and is started again.
	ReasonCrashLoopBackOff = "CrashLoopBackOff"
	// ReasonCompleted: the program ended by itself, without an error.
	ReasonCompleted = "Completed"
	// ReasonOOMKilled: the kernel ended the program, which used more memory than its limit.
	ReasonOOMKilled = "OOMKilled"
	// ReasonLivenessProbeFailed: the kubelet ended the program, whose liveness probe failed.
	ReasonLivenessProbeFailed = "LivenessProbeFailed"
	// ReasonStartupProbeFailed: the kubelet ended the program, whose startup probe failed.
	ReasonStartupProbeFailed = "StartupProbeFailed"
)

// Of credentials, files and keys. Most are words that the keyserver answers with, frozen with its protocol
// (docs/design/formats.md).
const (
	// ReasonKeyserverUnavailable: the keyserver could not be reached.
	ReasonKeyserverUnavailable = "KeyserverUnavailable"
	// ReasonUnauthenticated: no token, or the API server does not vouch for it.
	ReasonUnauthenticated = "Unauthenticated"
	// ReasonNotFound: the object does not exist (any more) under that UID.
	ReasonNotFound = "NotFound"
	// ReasonBadRequest: the request is not one that the keyserver knows.
	ReasonBadRequest = "BadRequest"
	// ReasonKeyMissing: a key that once existed is gone: never made again, restore the backup.
	ReasonKeyMissing = "KeyMissing"
	// ReasonKeysChoice: keys of an earlier Tenant wait, or are asked for: which ones it gets, its maker has to say.
	ReasonKeysChoice = "KeysChoice"
	// ReasonKeysAltered: a document of keys is not as the keyserver wrote it: restore the backup.
	ReasonKeysAltered = "KeysAltered"
	// ReasonKeysRolledBack: an earlier copy of a document of keys was put in its place.
	ReasonKeysRolledBack = "KeysRolledBack"
	// ReasonNoUIDRange: there is no block of user ids left to give to a tenant, or the keyserver named none that it
	// may have.
	ReasonNoUIDRange = "NoUIDRange"
	// ReasonKEKUnavailable: the key-encryption key cannot be used.
	ReasonKEKUnavailable = "KEKUnavailable"
	// ReasonPodMismatch: the pod is not the one that Lethe would make: something in the cluster has changed it.
	ReasonPodMismatch = "PodMismatch"
	// ReasonInUse: another live pod holds the token, or another sweep the store.
	ReasonInUse = "InUse"
	// ReasonBacklogSpent: more of a backlog is asked for than was approved, or than is left.
	ReasonBacklogSpent = "BacklogSpent"
	// ReasonNotReady: the object's credentials are not stored yet.
	ReasonNotReady = "NotReady"
	// ReasonRevoked: the object's keys were destroyed.
	ReasonRevoked = "Revoked"
	// ReasonSuspended: the tenant, the bot, the CronJob or the Job is suspended.
	ReasonSuspended = "Suspended"
	// ReasonNotIsolated: something foreign that may undo the walls is in the tenant's namespaces.
	ReasonNotIsolated = "NotIsolated"
	// ReasonForeignVolume: the volume is on record as another bot's, another Tenant's or nobody's.
	ReasonForeignVolume = "ForeignVolume"
	// ReasonStored: the credential was opened and is encrypted at rest.
	ReasonStored = "Stored"
	// ReasonNoCredentials: the spec names no credentials.
	ReasonNoCredentials = "NoCredentials"
	// ReasonMalformed: not a sealed value.
	ReasonMalformed = "Malformed"
	// ReasonWrongPlace: sealed for another tenant, namespace, object, key or destination.
	ReasonWrongPlace = "WrongPlace"
	// ReasonUnknownKey: sealed to a key that this tenant does not have.
	ReasonUnknownKey = "UnknownKey"
	// ReasonDoesNotOpen: right place by its hint, yet it does not open: altered, or another realm.
	ReasonDoesNotOpen = "DoesNotOpen"
	// ReasonRolledBack: older than the one in use, which goes on being used.
	ReasonRolledBack = "RolledBack"
	// ReasonVersionReused: the version was used before, for another sealed value.
	ReasonVersionReused = "VersionReused"
	// ReasonChannelTaken: another bot holds the messenger's channel that the token speaks for.
	ReasonChannelTaken = "ChannelTaken"
	// ReasonSecretMissing: secretKeyRef points at nothing.
	ReasonSecretMissing = "SecretMissing"
	// ReasonSecretNotShared: the Secret that secretKeyRef names does not name the bot.
	ReasonSecretNotShared = "SecretNotShared"
	// ReasonForeignSecret: a Secret that is not Lethe's has the name that its own would have; or secretKeyRef names
	// one that holds no credential of a bot.
	ReasonForeignSecret = "ForeignSecret"
	// ReasonNoVariable: the value cannot be an environment variable, and its delivery is Env.
	ReasonNoVariable = "NoVariable"
	// ReasonTooLarge: the credentials of one object come to more than a pod gets.
	ReasonTooLarge = "TooLarge"
	// ReasonFileMissing: configMapKeyRef points at nothing.
	ReasonFileMissing = "FileMissing"
	// ReasonFileNotShared: the ConfigMap does not name the bot, or is Lethe's own.
	ReasonFileNotShared = "FileNotShared"
	// ReasonFileRefused: too large, or it names a credential that the bot does not have.
	ReasonFileRefused = "FileRefused"
)

// Of DataStores and DataRetentionPolicies.
const (
	// ReasonSharedRefused: a Shared store outside the namespaces of a Platform tenant.
	ReasonSharedRefused = "SharedRefused"
	// ReasonUnknownStoreType: this version of Lethe works on no store of spec.type, or spec says nothing of it that
	// it could.
	ReasonUnknownStoreType = "UnknownStoreType"
	// ReasonNotPlanned: there is no plan; Ready says why.
	ReasonNotPlanned = "NotPlanned"
	// ReasonPlanProblem: a rule cannot be kept as it is written.
	ReasonPlanProblem = "PlanProblem"
	// ReasonPlanTooLarge: the plan does not fit a ConfigMap.
	ReasonPlanTooLarge = "PlanTooLarge"
	// ReasonPlanChanged: the plan is no longer the one that the live objects give, or the one that was measured by.
	ReasonPlanChanged = "PlanChanged"
	// ReasonConnected: the last sweep talked to the store over verified TLS.
	ReasonConnected = "Connected"
	// ReasonComplete: every table is a dataset that a rule governs, or exempt.
	ReasonComplete = "Complete"
	// ReasonUngoverned: no rule governs a dataset, or the store.
	ReasonUngoverned = "Ungoverned"
	// ReasonUncoveredTable: a table is neither dataset nor exempt.
	ReasonUncoveredTable = "UncoveredTable"
	// ReasonUndeclaredRelation: a column is named after a dataset, and nobody has said whether it refers to it.
	ReasonUndeclaredRelation = "UndeclaredRelation"
	// ReasonApproved: spec.approvedPlan covers what sweeps may delete.
	ReasonApproved = "Approved"
	// ReasonNothingToApprove: nothing waits for approval.
	ReasonNothingToApprove = "NothingToApprove"
	// ReasonAwaitingApproval: more would be deleted than was approved.
	ReasonAwaitingApproval = "AwaitingApproval"
	// ReasonAudit: the store is measured, and no policy deletes from it.
	ReasonAudit = "Audit"
	// ReasonCompliant: measured, and nothing is overdue.
	ReasonCompliant = "Compliant"
	// ReasonOverdue: rows are past window and slack, and still there.
	ReasonOverdue = "Overdue"
	// ReasonUnknownAge: there are rows without an age that can be believed.
	ReasonUnknownAge = "UnknownAge"
	// ReasonUnknownTenant: there are rows that may be of a tenant with a shorter window.
	ReasonUnknownTenant = "UnknownTenant"
	// ReasonNotMeasured: no sweep has measured it yet, or not all of it.
	ReasonNotMeasured = "NotMeasured"
	// ReasonReportLost: the last sweep's report cannot be read.
	ReasonReportLost = "ReportLost"
	// ReasonReportForged: the last sweep's report is not the one that the keyserver took and signed: in the status of
	// its pod, or where it is kept.
	ReasonReportForged = "ReportForged"
	// ReasonReportReplayed: an earlier report was put in the place of the last one, or a sweep's pod has reported
	// already.
	ReasonReportReplayed = "ReportReplayed"
	// ReasonSweepFailed: the last sweep measured nothing, and gave no reason.
	ReasonSweepFailed = "SweepFailed"
	// ReasonStale: the last measurement is older than two sweep intervals.
	ReasonStale = "Stale"
	// ReasonLimitReached: there is more than a report or a status holds, and what was left out is unknown.
	ReasonLimitReached = "LimitReached"
	// ReasonSweepFinished: an Event: a sweep has deleted rows that were past their window.
	ReasonSweepFinished = "SweepFinished"
	// ReasonNoStore: the policy's selector selects no store.
	ReasonNoStore = "NoStore"
	// ReasonNotVerified: a store has not shown by a measurement that it keeps the policy.
	ReasonNotVerified = "NotVerified"
	// ReasonRuleRefused: a rule of the policy cannot be kept.
	ReasonRuleRefused = "RuleRefused"
)

// Of a whole sweep, as its report has it.
const (
	// ReasonUnreachable: no connection: host, port, network policy, or the server is down.
	ReasonUnreachable = "Unreachable"
	// ReasonWrongPassword: the role or its password is not accepted.
	ReasonWrongPassword = "WrongPassword"
	// ReasonUntrustedCertificate: the server has no TLS, or a certificate that does not verify.
	ReasonUntrustedCertificate = "UntrustedCertificate"
	// ReasonNoSCRAM: the server logs in by something else than SCRAM-SHA-256: no password was sent.
	ReasonNoSCRAM = "NoSCRAM"
	// ReasonNoSuchDatabase: the server is there, the database is not.
	ReasonNoSuchDatabase = "NoSuchDatabase"
	// ReasonUnsupportedServer: too old, a standby, or without the settings that sweeping needs.
	ReasonUnsupportedServer = "UnsupportedServer"
	// ReasonPlanMismatch: the plan file is not the one whose hash was given.
	ReasonPlanMismatch = "PlanMismatch"
	// ReasonPlanExpired: the time until which the plan was valid has passed.
	ReasonPlanExpired = "PlanExpired"
	// ReasonLeaseRefused: the keyserver gave no lease: nothing was touched.
	ReasonLeaseRefused = "LeaseRefused"
	// ReasonTenantsUnknown: the keyserver did not say, at some time in a sweep of a Shared store, who is known: what
	// depends on it was neither deleted nor measured.
	ReasonTenantsUnknown = "TenantsUnknown"
	// ReasonTooManyTenants: the Tenants have more identifiers than a sweep of a Shared store takes: as
	// TenantsUnknown, and trying again changes nothing.
	ReasonTooManyTenants = "TooManyTenants"
	// ReasonLeaseLost: a lease was not renewed: stopped, nothing committed since.
	ReasonLeaseLost = "LeaseLost"
	// ReasonStoreBusy: another sweeper holds the store's lock.
	ReasonStoreBusy = "StoreBusy"
	// ReasonIdentityChanged: not the database that was approved: only measured.
	ReasonIdentityChanged = "IdentityChanged"
	// ReasonRestoredFrom: the database was put back to an earlier state: only measured.
	ReasonRestoredFrom = "RestoredFrom"
	// ReasonClockSkew: the store's and the pod's clocks differ by more than a minute.
	ReasonClockSkew = "ClockSkew"
	// ReasonTimeBudget: the time budget ended; the next sweep goes on.
	ReasonTimeBudget = "TimeBudget"
	// ReasonTerminated: the pod was asked to end; the next sweep goes on.
	ReasonTerminated = "Terminated"
	// ReasonDatasetsRefused: at least one dataset was measured or deleted from only in part: see the lines.
	ReasonDatasetsRefused = "DatasetsRefused"
	// ReasonStoreError: the connection broke, or the store answered with an error.
	ReasonStoreError = "StoreError"
	// ReasonInternal: a defect of the sweeper or the keyserver, or the API server could not be asked.
	ReasonInternal = "Internal"
)

// Of one dataset or rule. They stand in reason of status.datasets[] or of its rules[]; each keeps the dataset from
// being measured or deleted from, wholly or in part.
const (
	// ReasonMissingTable: the table does not exist.
	ReasonMissingTable = "MissingTable"
	// ReasonMissingColumn: a column that the dataset names does not exist.
	ReasonMissingColumn = "MissingColumn"
	// ReasonWrongAgeType: the age column is not of the declared type.
	ReasonWrongAgeType = "WrongAgeType"
	// ReasonUnknownTimeZone: the declared zone does not exist.
	ReasonUnknownTimeZone = "UnknownTimeZone"
	// ReasonKeyNotUnique: the key columns are not a primary key or a unique index without NULLs.
	ReasonKeyNotUnique = "KeyNotUnique"
	// ReasonMissingPrivilege: the role lacks a grant.
	ReasonMissingPrivilege = "MissingPrivilege"
	// ReasonUnsupportedTable: a view, a foreign table, row security, a rewrite rule, inheritance, an extension's type
	// as key.
	ReasonUnsupportedTable = "UnsupportedTable"
	// ReasonUnclearTenant: the tenant column cannot hold what a tenant is called, or cannot tell two tenants apart.
	ReasonUnclearTenant = "UnclearTenant"
	// ReasonUndeclaredForeignKey: a table that is no dataset refers to this one.
	ReasonUndeclaredForeignKey = "UndeclaredForeignKey"
	// ReasonUnindexedForeignKey: a foreign key into this table has no index on its columns.
	ReasonUnindexedForeignKey = "UnindexedForeignKey"
	// ReasonRelationType: spec.relations compares columns that an index does not compare.
	ReasonRelationType = "RelationType"
	// ReasonCascade: a CASCADE, SET NULL or SET DEFAULT reaches a table with a floor.
	ReasonCascade = "Cascade"
	// ReasonForeignKeyCycle: tables refer to each other in a circle.
	ReasonForeignKeyCycle = "ForeignKeyCycle"
	// ReasonReplicaIdentity: a publication passes deletions on, and the table has no replica identity.
	ReasonReplicaIdentity = "ReplicaIdentity"
	// ReasonGuarded: a trigger refuses to let rows go, or fails.
	ReasonGuarded = "Guarded"
	// ReasonLocked: another session holds rows or the table locked.
	ReasonLocked = "Locked"
	// ReasonContradiction: what refers to this dataset was promised a longer life.
	ReasonContradiction = "Contradiction"
	// ReasonSideEffect: deleting here changed other rows; rolled back.
	ReasonSideEffect = "SideEffect"
	// ReasonBrakeTripped: more would go than the brake allows; also an Event.
	ReasonBrakeTripped = "BrakeTripped"
	// ReasonReturned: rows that had been deleted are there again; also an Event.
	ReasonReturned = "Returned"
	// ReasonTimeout: a statement did not end in its time.
	ReasonTimeout = "Timeout"
	// ReasonPlan: the plan itself names a problem of this dataset or rule.
	ReasonPlan = "Plan"
	// ReasonNotReached: the sweep ended before it came to this dataset.
	ReasonNotReached = "NotReached"
	// ReasonLeftOut: the last report says nothing of the rule, and what was known of it before is its worst alone.
	ReasonLeftOut = "LeftOut"
)
