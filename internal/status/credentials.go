package status

import (
	"cmp"
	"fmt"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/keyapi"
)

// NoCredentials is CredentialsReady of an object that needs none.
func NoCredentials() *metav1.Condition {
	c := condition(v1alpha1.ConditionCredentialsReady, metav1.ConditionTrue, v1alpha1.ReasonNoCredentials, "The spec names no credentials.")
	return &c
}

// Credentials is CredentialsReady out of the keyserver's answer, and the problem that it means, if any. A value that
// was refused is a problem also where the one before it goes on being used. A value that is older than the one in use
// is not: reverting a commit must not stop a bot.
func Credentials(answer keyapi.CredentialsResponse) (*metav1.Condition, *Problem) {
	const kind = v1alpha1.ConditionCredentialsReady
	var refused, older, plain, notes []string
	reason := ""
	for _, item := range answer.Items {
		switch item.Reason {
		case v1alpha1.ReasonStored:
			if item.Message != "" {
				notes = append(notes, fmt.Sprintf(" %s: %s.", item.Name, item.Message))
			}
		case v1alpha1.ReasonRolledBack:
			older = append(older, item.Name)
			if answer.Secret == "" {
				// Nothing newer goes on being used: it is refused like any other.
				refused, reason = append(refused, fmt.Sprintf("%s: %s", item.Name, item.Message)), cmp.Or(reason, item.Reason)
			}
		default:
			refused = append(refused, fmt.Sprintf("%s: %s", item.Name, item.Message))
			if reason == "" {
				reason = item.Reason
			}
		}
		if item.Plaintext {
			plain = append(plain, item.Name)
		}
	}
	if len(refused) > 0 || answer.Secret == "" {
		return refusal(kind, reason, refused, answer.Secret != "")
	}
	c := condition(kind, metav1.ConditionTrue, v1alpha1.ReasonStored, "Every credential was opened and is encrypted at rest.")
	switch {
	case len(older) > 0:
		c = condition(kind, metav1.ConditionTrue, v1alpha1.ReasonRolledBack, fmt.Sprintf(
			"Older than the value in use, which goes on being used: %s. Seal the value you want again.", strings.Join(older, ", ")))
	case len(plain) > 0:
		c = condition(kind, metav1.ConditionTrue, v1alpha1.ReasonPlaintext, fmt.Sprintf(
			"Taken from a Secret, so the plaintext stands in etcd: %s. Prefer sealed values.", strings.Join(plain, ", ")))
	}
	c.Message += strings.Join(notes, "")
	return &c, nil
}

func refusal(kind, reason string, refused []string, going bool) (*metav1.Condition, *Problem) {
	message := strings.Join(refused, "; ")
	if reason == "" {
		reason, message = v1alpha1.ReasonNotReady, "The keyserver has stored no credentials yet."
	}
	if going {
		message += " The values before go on being used."
	}
	c := condition(kind, metav1.ConditionFalse, reason, message)
	return &c, &Problem{Condition: kind, Reason: reason, Message: c.Message, Stalled: true}
}
