package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/sealing"
	"github.com/lethe-dev/lethe/internal/tenancy"
)

// tenantKey is the key that a tenant's credentials are sealed to, with what is bound into every value beside the place.
type tenantKey struct {
	tenant, realm string
	public        sealing.PublicKey
}

// fingerprint is the SHA-256 of the key's bytes; its first 16 digits are the key's name.
func (k tenantKey) fingerprint() string {
	sum := sha256.Sum256(k.public.Bytes())
	return "SHA256:" + hex.EncodeToString(sum[:])
}

// keyFileFormat names the form of a key file.
const keyFileFormat = v1alpha1.KeyFileFormat

// keyFile is a tenant's public key for sealing without a cluster.
type keyFile struct {
	Format string `json:"format"`
	Tenant string `json:"tenant"`
	Realm  string `json:"realm"`
	KID    string `json:"kid"`
	Suite  string `json:"suite"`
	Public string `json:"public"`
}

func newKeysPublic(s *shell) *cobra.Command {
	return &cobra.Command{
		Use:   "public [TENANT]",
		Short: "Print a tenant's public key, to seal without a cluster",
		Long: `Print the public key that credentials of a tenant are sealed to, as a file that can be committed and given to
"kubectl lethe seal --key-file". Without a name it is the key of the tenant that the present namespace belongs to: a
tenant's own people may not read the Tenant, and get the key there.
Compare the fingerprint, which goes to standard error, over another way before trusting a file that somebody sent.`,
		Example: `  kubectl lethe keys public acme > tenant-key.yaml
  kubectl lethe keys public -n acme-bots > tenant-key.yaml`,
		Args:              atMostOne("the name of a Tenant"),
		ValidArgsFunction: s.completeTenants,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := s.client()
			if err != nil {
				return err
			}
			var key tenantKey
			if len(args) == 1 {
				key, err = s.keyOfTenant(cmd.Context(), c, args[0])
			} else {
				var ns string
				if ns, err = s.namespace(); err == nil {
					key, err = s.keyOfNamespace(cmd.Context(), c, ns)
				}
			}
			if err != nil {
				return err
			}
			s.note("Tenant %s, realm %s, key %s", key.tenant, key.realm, key.fingerprint())
			return s.writeKeyFile(key)
		},
	}
}

func (s *shell) writeKeyFile(key tenantKey) error {
	b, err := yaml.Marshal(keyFile{Format: keyFileFormat, Tenant: key.tenant, Realm: key.realm,
		KID: key.public.KID(), Suite: sealing.Suite, Public: key.public.String()})
	if err != nil {
		return fmt.Errorf("encode the key: %w", err)
	}
	return s.data(append([]byte(sprintf("# Public key of Tenant %s. It seals and opens nothing, and may be committed.\n", key.tenant)), b...))
}

func readKeyFile(path string) (tenantKey, error) {
	b, err := readFile("--key-file", path)
	if err != nil {
		return tenantKey{}, err
	}
	key, err := parseKeyFile(b)
	if err != nil {
		return key, fmt.Errorf("--key-file: %w", err)
	}
	return key, nil
}

func parseKeyFile(b []byte) (tenantKey, error) {
	var f keyFile
	dec := json.NewDecoder(bytes.NewReader(nil))
	if j, err := yaml.YAMLToJSON(b); err == nil {
		dec = json.NewDecoder(bytes.NewReader(j))
	}
	dec.DisallowUnknownFields()
	if err := dec.Decode(&f); err != nil || f.Format != keyFileFormat {
		return tenantKey{}, fmt.Errorf("not a key file (format: %s); make one with `kubectl lethe keys public`", keyFileFormat)
	}
	return newTenantKey(f.Tenant, v1alpha1.SealingKey{KID: f.KID, Suite: f.Suite, Public: f.Public, Realm: f.Realm})
}

// newTenantKey checks that a key is what its name says.
func newTenantKey(tenant string, k v1alpha1.SealingKey) (tenantKey, error) {
	public, err := sealing.ParsePublicKey(k.Suite, k.Public)
	if err != nil {
		return tenantKey{}, fmt.Errorf("sealing key %s of Tenant %s: %w", k.KID, tenant, err)
	}
	if public.KID() != k.KID {
		return tenantKey{}, fmt.Errorf("sealing key %s of Tenant %s is really key %s: it was altered, do not seal to it", k.KID, tenant, public.KID())
	}
	if tenant == "" || k.Realm == "" {
		return tenantKey{}, fmt.Errorf("sealing key %s: tenant and realm must be set", k.KID)
	}
	return tenantKey{tenant: tenant, realm: k.Realm, public: public}, nil
}

// keyOfTenant reads a tenant by name.
func (s *shell) keyOfTenant(ctx context.Context, c client.Client, name string) (tenantKey, error) {
	if !objectName.MatchString(name) {
		return tenantKey{}, errors.New("that cannot be the name of a Tenant")
	}
	var tenant v1alpha1.Tenant
	err := c.Get(ctx, client.ObjectKey{Name: name}, &tenant)
	if apierrors.IsForbidden(err) {
		return tenantKey{}, fmt.Errorf("you may not read Tenant %s; in one of its namespaces its people read the same key: `kubectl lethe keys public -n NAMESPACE`: %w", name, err)
	}
	if err != nil {
		return tenantKey{}, readError("Tenant "+name, err)
	}
	return s.firstKey(&tenant)
}

// keyOfNamespace reads the tenant that a namespace belongs to, which the namespace and the tenant must both say.
func (s *shell) keyOfNamespace(ctx context.Context, c client.Client, namespace string) (tenantKey, error) {
	whose, err := tenancy.Read(ctx, c, namespace)
	if apierrors.IsForbidden(err) {
		if key, found, err := s.keyInNamespace(ctx, c, namespace); found || err != nil {
			return key, err
		}
	}
	if err != nil {
		return tenantKey{}, readError("the tenant of namespace "+namespace, err)
	}
	if whose.Standing != tenancy.Held {
		return tenantKey{}, errors.New(whose.Why)
	}
	return s.firstKey(whose.Tenant)
}

// keyInNamespace reads the manager's copy of the key, for who may not read the Tenant. It says so: only the
// fingerprint tells a right copy from one that a broken-into manager made.
func (s *shell) keyInNamespace(ctx context.Context, c client.Client, namespace string) (tenantKey, bool, error) {
	var copied corev1.ConfigMap
	err := c.Get(ctx, client.ObjectKey{Namespace: namespace, Name: v1alpha1.SealingKeyConfigMap}, &copied)
	if apierrors.IsForbidden(err) || apierrors.IsNotFound(err) {
		return tenantKey{}, false, nil
	}
	what := fmt.Sprintf("ConfigMap %s in namespace %s", v1alpha1.SealingKeyConfigMap, namespace)
	if err != nil {
		return tenantKey{}, false, fmt.Errorf("read %s: %w", what, err)
	}
	key, err := parseKeyFile([]byte(copied.Data[v1alpha1.KeyFileName]))
	if err != nil {
		return tenantKey{}, false, fmt.Errorf("%s: %w", what, err)
	}
	s.note("note: you may not read the Tenant; this is its key as %s has it, and whether it still opens (the Tenant's condition KeysReady) cannot be checked", what)
	return key, true, nil
}

func (s *shell) firstKey(tenant *v1alpha1.Tenant) (tenantKey, error) {
	keys := meta.FindStatusCondition(tenant.Status.Conditions, v1alpha1.ConditionKeysReady)
	if keys != nil && keys.Status == metav1.ConditionFalse && len(tenant.Status.SealingKeys) > 0 {
		return tenantKey{}, fmt.Errorf("the key in the status of Tenant %s is not one to seal to: its condition KeysReady is False (%s): %s; have that mended first (keys that are lost come back by `kubectl lethe keys restore`), since nobody may be able to open what is sealed to it",
			tenant.Name, keys.Reason, keys.Message)
	}
	if len(tenant.Status.SealingKeys) == 0 {
		why := "the manager has not seen it yet"
		if keys != nil {
			why = fmt.Sprintf("its condition KeysReady is %s: %s", keys.Status, keys.Message)
		}
		return tenantKey{}, fmt.Errorf("there is no key to seal to in the status of Tenant %s; %s", tenant.Name, why)
	}
	if tenant.Status.KEKGrade == "Evaluation" {
		s.note("warning: the cluster's key-encryption key lies in a Secret of the same etcd: a snapshot of it opens everything that is sealed to this key")
	}
	return newTenantKey(tenant.Name, tenant.Status.SealingKeys[0])
}

// readError says what the caller's rights lack and what to do without them.
func readError(what string, err error) error {
	if apierrors.IsForbidden(err) {
		return fmt.Errorf("you may not read %s; ask whoever may for a key file (`kubectl lethe keys public`) and use --key-file: %w", what, err)
	}
	return fmt.Errorf("read %s: %w", what, err)
}

// readFile names the flag and not the file: the name may be a value that was put in the wrong place.
func readFile(flag, path string) ([]byte, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		var pathErr *os.PathError
		if errors.As(err, &pathErr) {
			err = pathErr.Err
		}
		return nil, fmt.Errorf("%s: read the file (its name is not repeated here): %w", flag, err)
	}
	return b, nil
}
