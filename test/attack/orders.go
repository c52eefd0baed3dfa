package attack

// Orders are what the bench tells an attacker's pod.
type Orders struct {
	Attack      bool     `json:"attack"`
	Addresses   []string `json:"addresses,omitempty"` // host:port of every keyserver
	Path        string   `json:"path,omitempty"`
	Token       string   `json:"token,omitempty"` // the pod's own, for Calls
	Body        string   `json:"body,omitempty"`
	Connections int      `json:"connections,omitempty"` // of each kind to each address
}
