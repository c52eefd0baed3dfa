package keyserver

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/keystore"
	"github.com/lethe-dev/lethe/internal/sealing"
)

const (
	// rotationPage is how many documents are in memory at once.
	rotationPage = 100
	// rotationWorkers is how many objects are worked on at once. The API server's own fairness bounds them further.
	rotationWorkers = 4
	// lateWrites is how long after a key was taken out of use a write under it may still land: another replica
	// remembers the tenant's keys and which KEK wraps, and a request that had begun with them may last. Nothing that
	// an earlier key wraps is looked for before that time is over, and the key goes only when nothing was found.
	lateWrites = keystore.KeyMemory + keystore.KEKMemory + 2*requestTimeout
	// recount is how often everything is counted when nobody has asked for anything.
	recount = time.Hour
	// slowestRetry bounds the wait between two passes of which the first could not finish.
	slowestRetry = 10 * time.Minute
	// maxProblems bounds what a pass says.
	maxProblems = 20
)

// rotation is what a process remembers of its passes. Everything that matters lies in the documents: a new process
// finds out by looking.
type rotation struct {
	mu      sync.Mutex
	version string    // of the request that the last pass read
	kek     string    // that wrapped then
	ended   time.Time // when the last pass ended
	again   time.Duration
	waits   bool // the last pass left something to do
}

// Rotate does what people asked for and what is left of it: one pass over all documents when one is due, else it
// reads the request and does nothing. It may run on every replica at once and be killed anywhere; each step is one
// write of one document, on the version that was read.
func (s *Server) Rotate(ctx context.Context) error {
	s.rotation.mu.Lock()
	defer s.rotation.mu.Unlock()
	if err := s.keys.KEKUsable(ctx); err != nil {
		return err
	}
	request, version, err := s.readRotation(ctx)
	if err != nil {
		return fmt.Errorf("read ConfigMap %s/%s: %w", s.KeysNamespace, keystore.RotationName, err)
	}
	if err := s.keys.TurnKEK(ctx, request.Of(keystore.LayerKEK, "")); err != nil {
		return fmt.Errorf("turn to another key-encryption key: %w", err)
	}
	if !s.passDue(version) {
		return nil
	}
	p := &pass{Server: s, request: request, began: s.keys.Now(), tenants: map[string]*passTenant{}, opened: map[string]*keystore.TenantKeys{},
		report: keystore.RotationStatus{Seen: version, Left: map[keystore.Layer]int{}, Refused: map[string]string{}}}
	if err := p.run(ctx); err != nil {
		s.rotation.version = "" // the next one begins anew
		return err
	}
	r := &s.rotation
	waits := p.report.Left[keystore.LayerKEK]+p.report.Left[keystore.LayerTenant]+p.report.Left[keystore.LayerData] > 0 || p.failed > 0 || p.soon
	switch {
	case !waits:
		r.again = 0
	case p.changed > 0 || r.version != version || p.soon:
		r.again = 15 * time.Second
	default:
		r.again = min(max(2*r.again, 15*time.Second), slowestRetry)
	}
	r.version, r.kek, r.ended, r.waits = version, s.keys.KEKs().First().KID(), s.Clock.Now(), waits
	return nil
}

// passDue says whether there is something to look at.
func (s *Server) passDue(version string) bool {
	r := &s.rotation
	since := s.Clock.Since(r.ended)
	return r.ended.IsZero() || r.version != version || r.kek != s.keys.KEKs().First().KID() || since >= recount || (r.waits && since >= r.again)
}

func (s *Server) readRotation(ctx context.Context) (keystore.RotationRequest, string, error) {
	var cm corev1.ConfigMap
	err := s.Client.Get(ctx, client.ObjectKey{Namespace: s.KeysNamespace, Name: keystore.RotationName}, &cm)
	if client.IgnoreNotFound(err) != nil {
		return keystore.RotationRequest{}, "", err
	}
	if apierrors.IsNotFound(err) {
		return keystore.ReadRotation(&corev1.ConfigMap{}, s.keys.Now()), "none", nil
	}
	return keystore.ReadRotation(&cm, s.keys.Now()), cm.ResourceVersion, nil
}

// passTenant is what a pass knows of a tenant when it comes to its objects.
type passTenant struct {
	name    string
	first   string               // kid of the key that wraps
	retired map[string]time.Time // kids that only open, and since when
	under   int                  // objects that are still under one of those
	seal    []string             // retired sealing keys
}

// pass goes over all documents once: first those that hold no object's keys, then the objects'.
type pass struct {
	*Server
	request keystore.RotationRequest
	began   time.Time
	tenants map[string]*passTenant // by UID

	mu      sync.Mutex
	opened  map[string]*keystore.TenantKeys // some tenants' keys, by UID
	changed int                             // documents that were written
	failed  int                             // that could not be dealt with
	soon    bool                            // something waits for nothing but time
	report  keystore.RotationStatus
}

func (p *pass) run(ctx context.Context) error {
	for _, objects := range []bool{false, true} {
		if err := p.pages(ctx, objects); err != nil {
			return err
		}
	}
	p.dropTenantKeys(ctx)
	p.countSealed(ctx)
	if err := p.settleKEKs(ctx); err != nil {
		return err
	}
	for layer, n := range p.report.Left {
		p.Metrics.onOld.WithLabelValues(string(layer)).Set(float64(n))
	}
	p.Metrics.rotationPass.Set(float64(p.Clock.Now().Unix()))
	return p.writeStatus(ctx)
}

// pages lists the documents page by page and works on each.
func (p *pass) pages(ctx context.Context, objects bool) error {
	next := ""
	for {
		var list corev1.SecretList
		err := p.Client.List(ctx, &list, client.InNamespace(p.KeysNamespace), client.Limit(rotationPage), client.Continue(next))
		if apierrors.IsResourceExpired(err) {
			return fmt.Errorf("the list of keys was too long in the reading: %w", err)
		}
		if err != nil {
			return fmt.Errorf("list the keys: %w", err)
		}
		var wg sync.WaitGroup
		slots := make(chan struct{}, rotationWorkers)
		for i := range list.Items {
			secret := &list.Items[i]
			if secret.Type != v1alpha1.SecretTypeWrappedKey || (keystore.FormatOf(secret) == keystore.FormatObject) != objects {
				continue
			}
			slots <- struct{}{}
			wg.Go(func() {
				defer func() { <-slots }()
				p.document(ctx, secret)
			})
		}
		wg.Wait()
		if err := ctx.Err(); err != nil {
			return err
		}
		if next = list.Continue; next == "" {
			return nil
		}
	}
}

// document deals with one document. A document that cannot be dealt with is named, counted, and looked at again.
func (p *pass) document(ctx context.Context, secret *corev1.Secret) {
	var err error
	switch keystore.FormatOf(secret) {
	case keystore.FormatObject:
		err = p.object(ctx, secret)
	case keystore.FormatTenant:
		err = p.tenantDocument(ctx, secret)
	default:
		err = p.kekDocument(ctx, secret)
	}
	if err != nil {
		p.problem(secret, err)
	}
}

// problem notes what could not be done. Somebody else's write at the same time is no problem: that was progress.
func (p *pass) problem(secret *corev1.Secret, err error) {
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) || errors.Is(err, errMeanwhile) {
		p.mu.Lock()
		p.soon = true
		p.failed++
		p.mu.Unlock()
		return
	}
	p.Log.Info("Keys stay as they are for now", "secret", secret.Name, "cause", err)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.failed++
	if text := secret.Name + ": " + causeOf(err); len(p.report.Problems) < maxProblems && !slices.Contains(p.report.Problems, text) {
		p.report.Problems = append(p.report.Problems, text)
	}
}

// causeOf is what a person may read: our own words, or the kind of the API server's trouble.
func causeOf(err error) string {
	switch {
	case errors.Is(err, keystore.ErrAltered), errors.Is(err, keystore.ErrUnreadable):
		return err.Error()
	case errors.Is(err, sealing.ErrUnknownKey):
		return "is under a key that this keyserver does not hold"
	case apierrors.IsForbidden(err):
		return "the keyserver lacks a right in its namespace"
	case errors.Is(err, errOtherTenant):
		return err.Error()
	}
	return "the API server could not be asked; see the keyserver's log"
}

// errMeanwhile: the document is another by now than the one that was read.
var errMeanwhile = errors.New("it was written by somebody else at the same time")

// errOtherTenant: an object's document belongs to a Tenant that has no keys.
var errOtherTenant = errors.New("its Tenant has no keys")

func (p *pass) wrote() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.changed++
}

func (p *pass) leave(layer keystore.Layer, n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.report.Left[layer] += n
}

// keysOfTenant opens a tenant's keys, as they are now, for its objects. A few are kept for as long as the pass lasts:
// an object that is under none of them has them read anew.
func (p *pass) keysOfTenant(ctx context.Context, tenant, uid string, anew bool) (*keystore.TenantKeys, error) {
	const remembered = 256
	p.mu.Lock()
	keys, ok := p.opened[uid]
	p.mu.Unlock()
	if ok && !anew {
		return keys, nil
	}
	var secret corev1.Secret
	err := p.Client.Get(ctx, client.ObjectKey{Namespace: p.KeysNamespace, Name: keystore.TenantSecretName(tenant)}, &secret)
	if apierrors.IsNotFound(err) {
		return nil, errOtherTenant
	}
	if err != nil {
		return nil, err
	}
	if keys, err = keystore.OpenTenantDocument(&secret, p.keys.KEKs()); err != nil {
		return nil, err
	}
	if keys.Doc.UID != uid || keys.Doc.Realm != p.Realm {
		return nil, errOtherTenant
	}
	p.remember(keys, remembered)
	return keys, nil
}

func (p *pass) remember(keys *keystore.TenantKeys, atMost int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.opened) >= atMost {
		clear(p.opened)
	}
	p.opened[keys.Doc.UID] = keys
}
