package snapshot

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/sealing"
)

const token = "4242:AAExampleExampleExampleExample_Exampl"

func newKEK(t *testing.T) []byte {
	t.Helper()
	b := make([]byte, 32)
	if _, err := rand.Read(b); err != nil {
		t.Fatal(err)
	}
	return []byte(base64.StdEncoding.EncodeToString(b))
}

func keyDocument(t *testing.T, name string, doc map[string]any) corev1.Secret {
	t.Helper()
	format := doc["format"]
	delete(doc, "format")
	b, err := json.Marshal(map[string]any{"format": format, "generation": 1, "document": doc, "mac": "mac.v1.0000000000000000.AA"})
	if err != nil {
		t.Fatal(err)
	}
	return corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "lethe-keys", Name: name}, Type: v1alpha1.SecretTypeWrappedKey, Data: map[string][]byte{"keys.json": b}}
}

// stolen are the Secrets of an installation with one bot, as the formats say they are.
func stolen(t *testing.T, kek []byte) (secrets []corev1.Secret, private []byte) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	root, err := sealing.ParseKEK(kek)
	must(err)
	tenant, err := sealing.NewKey(rand.Reader)
	must(err)
	data, err := sealing.NewKey(rand.Reader)
	must(err)
	seal, err := sealing.GeneratePrivateKey(rand.Reader)
	must(err)
	private, err = seal.Bytes()
	must(err)
	ids := []string{"demo", "acme", "tenant-uid"}
	tenantKey, err := root.Wrap(rand.Reader, tenant, sealing.PurposeTenant, ids...)
	must(err)
	sealKey, err := tenant.WrapBytes(rand.Reader, seal.Public().KID(), private, sealing.PurposeSeal, ids...)
	must(err)
	dataKey, err := tenant.Wrap(rand.Reader, data, sealing.PurposeData, append(ids, "bot-uid")...)
	must(err)
	item, err := json.Marshal(map[string]any{"name": "telegram-token", "value": []byte(token)})
	must(err)
	owner := sealing.Owner{Realm: "demo", Tenant: "acme", Namespace: "acme-bots", Kind: "BotDeployment", UID: "bot-uid"}
	text, err := data.EncryptValue(rand.Reader, owner, "telegram-token", 1, item)
	must(err)
	return []corev1.Secret{
		keyDocument(t, "tenant-acme", map[string]any{"format": "lethe.dev/tenant-keys/v2", "realm": "demo", "tenant": "acme", "uid": "tenant-uid", "keys": []map[string]any{{"key": tenantKey}},
			"seal": []map[string]any{{"kid": seal.Public().KID(), "key": sealKey}}}),
		keyDocument(t, "object-bot-uid", map[string]any{"format": "lethe.dev/object-keys/v2", "realm": "demo", "tenant": "acme", "tenantUID": "tenant-uid", "kind": "BotDeployment",
			"namespace": "acme-bots", "name": "support", "uid": "bot-uid", "keys": []map[string]any{{"key": dataKey}}, "current": "support-cred"}),
		{ObjectMeta: metav1.ObjectMeta{Namespace: "acme-bots", Name: "support-cred"}, Type: v1alpha1.SecretTypeEncrypted, Data: map[string][]byte{"telegram-token": []byte(text)}},
		{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "somebody-elses"}, Type: corev1.SecretTypeOpaque, Data: map[string][]byte{"a": []byte("b")}},
	}, private
}

func TestTheRightKeyOpensEverything(t *testing.T) {
	kek := newKEK(t)
	secrets, private := stolen(t, kek)
	opened, err := Open(secrets, kek)
	if err != nil {
		t.Fatal(err)
	}
	if got := opened.Credentials["acme-bots/BotDeployment/support/telegram-token"]; string(got) != token || len(opened.Credentials) != 1 {
		t.Errorf("opened %d credentials", len(opened.Credentials))
	}
	if len(opened.PrivateKeys) != 1 {
		t.Errorf("%d private keys", len(opened.PrivateKeys))
	}
	for _, key := range opened.PrivateKeys {
		if !bytes.Equal(key, private) {
			t.Error("another private key")
		}
	}
}

func TestAnotherKeyOpensNothing(t *testing.T) {
	secrets, _ := stolen(t, newKEK(t))
	opened, err := Open(secrets, newKEK(t))
	if err == nil || len(opened.Credentials)+len(opened.PrivateKeys) != 0 {
		t.Errorf("%d credentials, %d private keys, %v", len(opened.Credentials), len(opened.PrivateKeys), err)
	}
	if _, err := Open(nil, newKEK(t)); !errors.Is(err, ErrNothing) {
		t.Errorf("a snapshot without any credential proves nothing: %v", err)
	}
	if _, err := Open(secrets, []byte("short")); err == nil {
		t.Error("half a key was taken")
	}
}

func TestWhatEtcdHoldsIsDecoded(t *testing.T) {
	secrets, _ := stolen(t, newKEK(t))
	serializer := protobuf.NewSerializer(clientgoscheme.Scheme, clientgoscheme.Scheme)
	var kvs []map[string][]byte
	for i := range secrets {
		var value bytes.Buffer
		if err := clientgoscheme.Codecs.EncoderForVersion(serializer, corev1.SchemeGroupVersion).Encode(kruntime.Object(&secrets[i]), &value); err != nil {
			t.Fatal(err)
		}
		kvs = append(kvs, map[string][]byte{"key": []byte("/registry/secrets/x"), "value": value.Bytes()})
	}
	out, err := json.Marshal(map[string]any{"kvs": kvs})
	if err != nil {
		t.Fatal(err)
	}
	got, err := decode(out)
	if err != nil || len(got) != len(secrets) || got[2].Name != "support-cred" || got[2].Type != v1alpha1.SecretTypeEncrypted {
		t.Errorf("%d Secrets, %v", len(got), err)
	}
	if _, err := decode([]byte(`{"kvs":[{"key":"eA==","value":"eA=="}]}`)); err == nil {
		t.Error("what is no object was decoded")
	}
}
