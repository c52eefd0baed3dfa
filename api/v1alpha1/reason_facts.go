package v1alpha1

import (
	"maps"
	"slices"
)

// Truth is what a reason tells of a question.
type Truth int32

const (
	// TruthNotTold, the zero value: the reason does not tell.
	TruthNotTold Truth = iota
	// TruthNo and TruthYes: it tells.
	TruthNo
	TruthYes
)

// ReasonFacts are what follows from a reason. The zero value tells nothing: it is that of a reason that is no news,
// and of one that is not known here, since it is another version's or another program's.
// +kubebuilder:object:generate=false
type ReasonFacts struct {
	// Reached says whether a sweep that ended with the reason as a whole had talked to its store. Reasons that end no
	// sweep do not tell, nor do those that can come before the store and after it.
	Reached Truth `json:"-"`
	// NeedsPerson says that a person is wanted: to change something, or to look where it lasts, if it is tried again
	// by itself.
	NeedsPerson bool `json:"-"`
	// Retry says that Lethe or Kubernetes tries again by itself, and that this may succeed although nobody changes
	// the object that tells the reason.
	Retry bool `json:"-"`
	// Pod is what it tells of a bot's pod.
	Pod PodFacts `json:"-"`
}

// PodFacts are what follows from a reason for the bot whose pod has it. The zero value: it is not about a step of the
// pod's own.
// +kubebuilder:object:generate=false
type PodFacts struct {
	// Step that the bot has come to, and does not get over.
	Step PodStep `json:"-"`
	// Fails says that the bot does not get over it by waiting, whatever else happens in the cluster: it fails, and is
	// not only on its way.
	Fails bool `json:"-"`
	// Image says that the node does not get an image, whatever the registry said.
	Image bool `json:"-"`
	// Ended says that a container's program has ended.
	Ended bool `json:"-"`
}

// PodStep is how far a bot has come on the way to a pod that is ready.
type PodStep int32

const (
	// PodStepNone, the zero value: something before its pod, or what no step of its own gets over: another thing has
	// to end.
	PodStepNone PodStep = iota
	// PodStepAllowed: quotas and admission let the pod be made.
	PodStepAllowed
	// PodStepMade: there is a pod.
	PodStepMade
	// PodStepScheduled: it has a node.
	PodStepScheduled
	// PodStepMounted: the node has its volumes and its network.
	PodStepMounted
	// PodStepPrepared: it has its images and its credentials.
	PodStepPrepared
	// PodStepRuns: its program runs and is ready.
	PodStepRuns
)

// FactsOf is a reason's row.
func FactsOf(reason string) ReasonFacts { return reasonFacts[reason] }

// IsFinal says that nothing goes on until a person changes something: to ask again is of no use before.
func (f ReasonFacts) IsFinal() bool { return f.NeedsPerson && !f.Retry }

// Reasons are all of them, sorted.
func Reasons() []string { return slices.Sorted(maps.Keys(reasonFacts)) }

// IsForeign says whether a reason of IsolationReady is that something foreign is in a Tenant's namespaces.
func IsForeign(reason string) bool {
	return reason == ReasonForeignNetworkPolicy || reason == ReasonForeignObject
}

// reasonFacts has a row for each reason, in the order of reasons.go (TestEveryReasonHasItsRow).
var reasonFacts = map[string]ReasonFacts{
	// Of every kind.
	ReasonPending:         {Retry: true},
	ReasonReady:           {},
	ReasonProgressing:     {Retry: true},
	ReasonWaiting:         {Retry: true},
	ReasonDeleting:        {Retry: true},
	ReasonNoTenant:        {NeedsPerson: true, Retry: true},
	ReasonTenantNotReady:  {Retry: true},
	ReasonNameTaken:       {NeedsPerson: true, Retry: true},
	ReasonRefused:         {NeedsPerson: true},
	ReasonForbidden:       {NeedsPerson: true},
	ReasonQuotaExceeded:   {NeedsPerson: true, Retry: true, Pod: PodFacts{Step: PodStepAllowed}},
	ReasonTerminating:     {Retry: true},
	ReasonRetrying:        {Retry: true},
	ReasonDNSOutOfReach:   {NeedsPerson: true, Retry: true},
	ReasonOrphanRemoved:   {},
	ReasonTemplateChanged: {},

	// Of Tenants.
	ReasonPodSecurityOverruled: {NeedsPerson: true},
	ReasonNamespaceTaken:       {NeedsPerson: true, Retry: true},
	ReasonNamespaceReserved:    {NeedsPerson: true},
	ReasonNamespaceInUse:       {NeedsPerson: true, Retry: true},
	ReasonForeignNetworkPolicy: {NeedsPerson: true, Retry: true},
	ReasonForeignObject:        {NeedsPerson: true, Retry: true},
	ReasonClassMissing:         {NeedsPerson: true, Retry: true},
	ReasonExternalIDTaken:      {NeedsPerson: true, Retry: true},
	ReasonExternalIDContested:  {},
	ReasonKeysAvailable:        {},
	ReasonUIDRangeTaken:        {NeedsPerson: true, Retry: true},
	ReasonUIDRangeRestored:     {},
	ReasonHoldsBots:            {},
	ReasonHoldsVolumes:         {},
	ReasonEmpty:                {},
	ReasonWithinBudget:         {},
	ReasonBudgetExceeded:       {NeedsPerson: true, Retry: true},
	ReasonHeld:                 {NeedsPerson: true, Retry: true},

	// Of BotDeployments.
	ReasonIsolated:                {},
	ReasonEgressBeyondCeiling:     {NeedsPerson: true},
	ReasonAnnotationNotAllowed:    {NeedsPerson: true},
	ReasonKeyserverAddressUnknown: {NeedsPerson: true, Retry: true},
	ReasonPlaintext:               {NeedsPerson: true},
	ReasonPlaintextInSpec:         {NeedsPerson: true},
	ReasonRunning:                 {},
	ReasonTenantSuspended:         {},
	ReasonTenantDeleting:          {NeedsPerson: true, Retry: true},
	ReasonTimeZoneUnknown:         {NeedsPerson: true},
	ReasonRestartRequested:        {},
	ReasonUpdateWaits:             {Retry: true},
	ReasonUpdateStopped:           {NeedsPerson: true, Retry: true},
	ReasonUpdateHeld:              {NeedsPerson: true, Retry: true},
	ReasonRolloutStopped:          {NeedsPerson: true},
	ReasonVolumeMissing:           {NeedsPerson: true, Retry: true},
	ReasonVolumeDiffers:           {NeedsPerson: true},
	ReasonVolumeKept:              {NeedsPerson: true},

	// Of a bot's pod that is not ready, and of its containers.
	ReasonPodMissing:                 {Retry: true, Pod: PodFacts{Step: PodStepMade}},
	ReasonPodNotReady:                {Retry: true, Pod: PodFacts{Step: PodStepRuns}},
	ReasonPodTerminating:             {Retry: true},
	ReasonStopping:                   {Retry: true},
	ReasonPodRefused:                 {NeedsPerson: true, Retry: true, Pod: PodFacts{Step: PodStepAllowed, Fails: true}},
	ReasonUnschedulable:              {NeedsPerson: true, Retry: true, Pod: PodFacts{Step: PodStepScheduled}},
	ReasonNodeLost:                   {NeedsPerson: true, Retry: true},
	ReasonNodeShutdown:               {Retry: true, Pod: PodFacts{Step: PodStepRuns}},
	ReasonEvicted:                    {NeedsPerson: true, Retry: true, Pod: PodFacts{Step: PodStepRuns}},
	ReasonVolumeNotMounted:           {NeedsPerson: true, Retry: true, Pod: PodFacts{Step: PodStepMounted}},
	ReasonPodSandboxFailed:           {NeedsPerson: true, Retry: true, Pod: PodFacts{Step: PodStepMounted}},
	ReasonCredentialsNotFetched:      {Retry: true, Pod: PodFacts{Step: PodStepPrepared}},
	ReasonImagePullBackOff:           {NeedsPerson: true, Retry: true, Pod: PodFacts{Step: PodStepPrepared, Fails: true, Image: true}},
	ReasonImageNotFound:              {NeedsPerson: true, Retry: true, Pod: PodFacts{Step: PodStepPrepared, Fails: true, Image: true}},
	ReasonImagePullUnauthorized:      {NeedsPerson: true, Retry: true, Pod: PodFacts{Step: PodStepPrepared, Fails: true, Image: true}},
	ReasonRegistryUnavailable:        {NeedsPerson: true, Retry: true, Pod: PodFacts{Step: PodStepPrepared, Fails: true, Image: true}},
	ReasonSignatureInvalid:           {NeedsPerson: true, Retry: true, Pod: PodFacts{Step: PodStepPrepared, Fails: true, Image: true}},
	ReasonInvalidImageName:           {NeedsPerson: true, Pod: PodFacts{Step: PodStepPrepared, Fails: true, Image: true}},
	ReasonImageNeverPull:             {NeedsPerson: true, Retry: true, Pod: PodFacts{Step: PodStepPrepared, Fails: true, Image: true}},
	ReasonCreateContainerConfigError: {NeedsPerson: true, Retry: true, Pod: PodFacts{Step: PodStepPrepared, Fails: true}},
	ReasonCreateContainerError:       {NeedsPerson: true, Retry: true, Pod: PodFacts{Step: PodStepPrepared, Fails: true}},
	ReasonRunContainerError:          {NeedsPerson: true, Retry: true, Pod: PodFacts{Step: PodStepPrepared, Fails: true}},
	ReasonPreCreateHookError:         {NeedsPerson: true, Retry: true, Pod: PodFacts{Step: PodStepPrepared, Fails: true}},
	ReasonPreStartHookError:          {NeedsPerson: true, Retry: true, Pod: PodFacts{Step: PodStepPrepared, Fails: true}},
	ReasonPostStartHookError:         {NeedsPerson: true, Retry: true, Pod: PodFacts{Step: PodStepPrepared, Fails: true}},
	ReasonContainerCannotStart:       {NeedsPerson: true, Pod: PodFacts{Step: PodStepRuns, Fails: true, Ended: true}},
	ReasonCrashLoopBackOff:           {NeedsPerson: true, Retry: true, Pod: PodFacts{Step: PodStepRuns, Fails: true, Ended: true}},
	ReasonCompleted:                  {NeedsPerson: true, Retry: true, Pod: PodFacts{Step: PodStepRuns, Fails: true, Ended: true}},
	ReasonOOMKilled:                  {NeedsPerson: true, Retry: true, Pod: PodFacts{Step: PodStepRuns, Fails: true, Ended: true}},
	ReasonLivenessProbeFailed:        {NeedsPerson: true, Retry: true, Pod: PodFacts{Step: PodStepRuns, Fails: true, Ended: true}},
	ReasonStartupProbeFailed:         {NeedsPerson: true, Retry: true, Pod: PodFacts{Step: PodStepRuns, Fails: true, Ended: true}},

	// Of credentials, files and keys.
	ReasonKeyserverUnavailable: {Retry: true},
	ReasonUnauthenticated:      {Retry: true},
	ReasonNotFound:             {Retry: true},
	ReasonBadRequest:           {NeedsPerson: true},
	ReasonKeyMissing:           {NeedsPerson: true},
	ReasonKeysChoice:           {NeedsPerson: true},
	ReasonKeysAltered:          {NeedsPerson: true},
	ReasonKeysRolledBack:       {NeedsPerson: true},
	ReasonNoUIDRange:           {NeedsPerson: true, Retry: true},
	ReasonKEKUnavailable:       {NeedsPerson: true, Retry: true},
	ReasonPodMismatch:          {NeedsPerson: true, Retry: true, Pod: PodFacts{Step: PodStepPrepared, Fails: true}},
	ReasonInUse:                {Retry: true},
	ReasonBacklogSpent:         {NeedsPerson: true},
	ReasonNotReady:             {Retry: true},
	ReasonRevoked:              {NeedsPerson: true},
	ReasonSuspended:            {},
	ReasonNotIsolated:          {NeedsPerson: true, Retry: true},
	ReasonForeignVolume:        {NeedsPerson: true, Retry: true},
	ReasonStored:               {},
	ReasonNoCredentials:        {},
	ReasonMalformed:            {NeedsPerson: true},
	ReasonWrongPlace:           {NeedsPerson: true},
	ReasonUnknownKey:           {NeedsPerson: true},
	ReasonDoesNotOpen:          {NeedsPerson: true},
	ReasonRolledBack:           {NeedsPerson: true},
	ReasonVersionReused:        {NeedsPerson: true},
	ReasonChannelTaken:         {NeedsPerson: true, Retry: true},
	ReasonSecretMissing:        {NeedsPerson: true, Retry: true},
	ReasonSecretNotShared:      {NeedsPerson: true, Retry: true},
	ReasonForeignSecret:        {NeedsPerson: true, Retry: true},
	ReasonNoVariable:           {NeedsPerson: true},
	ReasonTooLarge:             {NeedsPerson: true},
	ReasonFileMissing:          {NeedsPerson: true, Retry: true},
	ReasonFileNotShared:        {NeedsPerson: true, Retry: true},
	ReasonFileRefused:          {NeedsPerson: true},

	// Of DataStores and DataRetentionPolicies.
	ReasonSharedRefused:      {NeedsPerson: true},
	ReasonUnknownStoreType:   {NeedsPerson: true},
	ReasonNotPlanned:         {Retry: true},
	ReasonPlanProblem:        {NeedsPerson: true},
	ReasonPlanTooLarge:       {NeedsPerson: true},
	ReasonPlanChanged:        {Retry: true},
	ReasonConnected:          {},
	ReasonComplete:           {},
	ReasonUngoverned:         {NeedsPerson: true},
	ReasonUncoveredTable:     {NeedsPerson: true},
	ReasonUndeclaredRelation: {NeedsPerson: true},
	ReasonApproved:           {},
	ReasonNothingToApprove:   {},
	ReasonAwaitingApproval:   {NeedsPerson: true},
	ReasonAudit:              {},
	ReasonCompliant:          {},
	ReasonOverdue:            {NeedsPerson: true, Retry: true},
	ReasonUnknownAge:         {NeedsPerson: true},
	ReasonUnknownTenant:      {NeedsPerson: true},
	ReasonNotMeasured:        {Retry: true},
	ReasonReportLost:         {Retry: true},
	ReasonReportForged:       {NeedsPerson: true, Retry: true},
	ReasonReportReplayed:     {NeedsPerson: true, Retry: true},
	ReasonSweepFailed:        {Retry: true},
	ReasonStale:              {Retry: true},
	ReasonLimitReached:       {Reached: TruthYes, NeedsPerson: true},
	ReasonSweepFinished:      {},
	ReasonNoStore:            {NeedsPerson: true},
	ReasonNotVerified:        {NeedsPerson: true, Retry: true},
	ReasonRuleRefused:        {NeedsPerson: true},

	// Of a whole sweep, as its report has it.
	ReasonUnreachable:          {Reached: TruthNo, Retry: true},
	ReasonWrongPassword:        {Reached: TruthNo, NeedsPerson: true},
	ReasonUntrustedCertificate: {Reached: TruthNo, NeedsPerson: true},
	ReasonNoSCRAM:              {Reached: TruthNo, NeedsPerson: true},
	ReasonNoSuchDatabase:       {Reached: TruthNo, NeedsPerson: true},
	ReasonUnsupportedServer:    {Reached: TruthNo, NeedsPerson: true},
	ReasonPlanMismatch:         {Retry: true},
	ReasonPlanExpired:          {Retry: true},
	ReasonLeaseRefused:         {Retry: true},
	ReasonTenantsUnknown:       {Reached: TruthYes, Retry: true},
	ReasonTooManyTenants:       {Reached: TruthYes, NeedsPerson: true},
	ReasonLeaseLost:            {Reached: TruthYes, Retry: true},
	ReasonStoreBusy:            {Retry: true},
	ReasonIdentityChanged:      {Reached: TruthYes, NeedsPerson: true},
	ReasonRestoredFrom:         {Reached: TruthYes, NeedsPerson: true},
	ReasonClockSkew:            {Reached: TruthYes, NeedsPerson: true},
	ReasonTimeBudget:           {Reached: TruthYes, Retry: true},
	ReasonTerminated:           {Retry: true},
	ReasonDatasetsRefused:      {Reached: TruthYes, NeedsPerson: true},
	ReasonStoreError:           {Retry: true},
	ReasonInternal:             {Retry: true},

	// Of one dataset or rule.
	ReasonMissingTable:         {NeedsPerson: true},
	ReasonMissingColumn:        {NeedsPerson: true},
	ReasonWrongAgeType:         {NeedsPerson: true},
	ReasonUnknownTimeZone:      {NeedsPerson: true},
	ReasonKeyNotUnique:         {NeedsPerson: true},
	ReasonMissingPrivilege:     {NeedsPerson: true},
	ReasonUnsupportedTable:     {NeedsPerson: true},
	ReasonUnclearTenant:        {NeedsPerson: true},
	ReasonUndeclaredForeignKey: {NeedsPerson: true},
	ReasonUnindexedForeignKey:  {NeedsPerson: true},
	ReasonRelationType:         {NeedsPerson: true},
	ReasonCascade:              {NeedsPerson: true},
	ReasonForeignKeyCycle:      {NeedsPerson: true},
	ReasonReplicaIdentity:      {NeedsPerson: true},
	ReasonGuarded:              {NeedsPerson: true},
	ReasonLocked:               {Retry: true},
	ReasonContradiction:        {NeedsPerson: true},
	ReasonSideEffect:           {NeedsPerson: true},
	ReasonBrakeTripped:         {NeedsPerson: true},
	ReasonReturned:             {NeedsPerson: true},
	ReasonTimeout:              {Retry: true},
	ReasonPlan:                 {NeedsPerson: true},
	ReasonNotReached:           {Retry: true},
	ReasonLeftOut:              {Retry: true},
}
