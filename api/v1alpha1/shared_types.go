package v1alpha1

// Period is a length of calendar time in exactly one unit. Weeks, days and hours are exact; months and years
// are calendar periods (a month is 28 to 31 days), which is why two units never mix in one period.
//
// +kubebuilder:validation:XValidation:rule="[has(self.hours), has(self.days), has(self.weeks), has(self.months), has(self.years)].exists_one(x, x)",message="write it in exactly one unit (hours, days, weeks, months or years), for example days: 90"
type Period struct {
	// hours of exactly 60 minutes.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=876000
	Hours *int32 `json:"hours,omitempty"`

	// days of exactly 24 hours.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=36500
	Days *int32 `json:"days,omitempty"`

	// weeks of exactly 7 days.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=5200
	Weeks *int32 `json:"weeks,omitempty"`

	// months of the Gregorian calendar, in UTC.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1200
	Months *int32 `json:"months,omitempty"`

	// years of the Gregorian calendar, in UTC.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100
	Years *int32 `json:"years,omitempty"`
}

// Slack is a length of clock time in exactly one unit: how late a deletion may be before it counts as overdue.
// Months and years are not offered: slack is measured on a clock, never on a calendar.
//
// +kubebuilder:validation:XValidation:rule="[has(self.minutes), has(self.hours), has(self.days)].exists_one(x, x)",message="write it in exactly one unit (minutes, hours, days), for example hours: 24"
type Slack struct {
	// minutes of exactly 60 seconds.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=525600
	Minutes *int32 `json:"minutes,omitempty"`

	// hours of exactly 60 minutes.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=8760
	Hours *int32 `json:"hours,omitempty"`

	// days of exactly 24 hours.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=365
	Days *int32 `json:"days,omitempty"`
}

// DataClass names a kind of record in the host company's own words, for example Conversations or Payments.
// A policy's rule and a store's dataset meet in it. Its form is checked by rules on the parents: a failed rule on the
// field itself would repeat the value, whatever was pasted there.
//
// +kubebuilder:validation:MinLength=1
// +kubebuilder:validation:MaxLength=63
type DataClass string

// SealedValue is a value encrypted by `kubectl lethe seal` for exactly one place.
// Its form (seal.v1.…) is checked by a rule on the parent object, so that a plaintext pasted here by mistake is
// refused without being repeated in the error. Format: docs/design/formats.md.
//
// +kubebuilder:validation:MaxLength=92160
type SealedValue string

// EgressPort is a port that traffic may leave to.
type EgressPort struct {
	// protocol of the port. Defaults to TCP.
	// +optional
	// +kubebuilder:validation:Enum=TCP;UDP
	Protocol string `json:"protocol,omitempty"`

	// port number.
	// +required
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	Port int32 `json:"port,omitempty"`
}

// EgressRule opens a block of addresses on some ports.
//
// +kubebuilder:validation:XValidation:rule="isCIDR(self.cidr)",message="not a block of addresses: write one such as 140.82.112.0/20 or 2606:50c0::/32",fieldPath=".cidr"
// +kubebuilder:validation:XValidation:rule="!isCIDR(self.cidr) || cidr(self.cidr) == cidr(self.cidr).masked()",message="has bits set behind its length: write the block's first address, such as 10.0.0.0/8 for 10.0.0.5/8",fieldPath=".cidr"
type EgressRule struct {
	// cidr is the block of addresses, IPv4 or IPv6, for example 140.82.112.0/20.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=43
	CIDR string `json:"cidr,omitempty"`

	// ports that are opened. At least one: "every port" cannot be said.
	// +required
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	Ports []EgressPort `json:"ports,omitempty"`
}

// ImagePullSecret names a Secret of the pod's namespace, of the type kubernetes.io/dockerconfigjson or
// kubernetes.io/dockercfg.
//
// +kubebuilder:validation:XValidation:rule="self.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')",message="must be the name of a Secret (the value is not repeated here)",fieldPath=".name"
type ImagePullSecret struct {
	// name of the Secret.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name,omitempty"`
}
