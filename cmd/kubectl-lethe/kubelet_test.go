package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// cleanupContext outlives the test's own.
func cleanupContext() context.Context { return context.Background() }

// kubelet is a node's door for logs, as the API server knocks there: what it answers says what it was asked.
type kubelet struct{ node string }

func newKubelet(t *testing.T) *kubelet {
	t.Helper()
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
		if len(parts) != 4 || parts[0] != "containerLogs" {
			http.NotFound(w, r)
			return
		}
		_, _ = fmt.Fprintf(w, "%s\nsecond line without an end", strings.Join(append(parts[2:], sorted(r.URL.Query())...), " "))
	}))
	t.Cleanup(server.Close)
	host, port, err := net.SplitHostPort(server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{GenerateName: "logs-"}}
	create(t, node)
	node.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: host}}
	node.Status.DaemonEndpoints.KubeletEndpoint.Port = int32(number)
	writeStatus(t, node)
	return &kubelet{node: node.Name}
}

func sorted(query url.Values) []string {
	var out []string
	for key := range query {
		out = append(out, key+"="+query.Get(key))
	}
	slices.Sort(out)
	return out
}
