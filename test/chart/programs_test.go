package chart

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/lethe-dev/lethe/internal/resources"
)

// takes says what the programs' flags say of a value.
func takes(name, value string) error {
	var s resources.Settings
	flags := flag.NewFlagSet("", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	s.AddFlags(flags)
	if err := flags.Parse([]string{"--image=registry.example/lethe:v1", "--" + name + "=" + value}); err != nil {
		return err
	}
	return s.Validate()
}

// TestChartRefusesWhatTheProgramsRefuse: what the manager or the keyserver would not start with is refused before
// anything is installed. Each row is refused by the flag too, where there is one.
func TestChartRefusesWhatTheProgramsRefuse(t *testing.T) {
	var many []string
	for i := range 8 {
		many = append(many, fmt.Sprintf(`{"name":"n%d%s"}`, i, strings.Repeat("x", 60)))
	}
	hex := strings.Repeat("a", 64)
	for _, row := range []struct{ set, flag, value, want string }{
		{`dns.ports=[53,8443]`, "dns-ports", "53,8443", "dns.ports: port 8443 is not DNS'"},
		{`dns.ports=[16443]`, "dns-ports", "16443", "dns.ports: port 16443 is not DNS'"},
		{`dns.blocks=["169.254.20.10/16"]`, "dns-blocks", "169.254.20.10/16", `dns.blocks: "169.254.20.10/16" has bits set behind its length`},
		{`dns.blocks=["10.0.0.0/8"]`, "dns-blocks", "10.0.0.0/8", `dns.blocks: "10.0.0.0/8" is wider than /16: name the addresses that answer DNS`},
		{`dns.blocks=["10.0.0.0/33"]`, "dns-blocks", "10.0.0.0/33", `dns.blocks: "10.0.0.0/33" is no address`},
		{`dns.podLabels={"a":"b c"}`, "dns-pod-labels", "a=b c", "/dns/podLabels/a"},
		{`dns.podLabels={"a b":"c"}`, "dns-pod-labels", "a b=c", "/dns/podLabels"},
		{`networkPolicy.closedAddresses=["203.0.113.7/24"]`, "closed-addresses", "203.0.113.7/24", `networkPolicy.closedAddresses: "203.0.113.7/24" has bits`},
		{`networkPolicy.closedAddresses=["1.2.3"]`, "closed-addresses", "1.2.3", `networkPolicy.closedAddresses: "1.2.3" is no address`},
		{`networkPolicy.apiServerBlocks=["10.0.0.1/24"]`, "", "", `networkPolicy.apiServerBlocks: "10.0.0.1/24" has bits`},
		{`pods.annotations=["*"]`, "pod-annotations", "*", `pods.annotations: "*" would let in any annotation`},
		{`pods.annotations=["lethe.dev/a"]`, "pod-annotations", "lethe.dev/a", `pods.annotations: "lethe.dev/a" would let in any annotation, or Lethe's own`},
		{`pods.annotations=["example*"]`, "pod-annotations", "example*", `pods.annotations: "example*" is no prefix that ends a domain`},
		{`pods.botAnnotations=["k8s.v1.cni.cncf.io/networks"]`, "bot-annotations", "k8s.v1.cni.cncf.io/networks", `pods.botAnnotations: "k8s.v1.cni.cncf.io/networks" would let bots set`},
		{`pods.botAnnotations=["lethe.dev/*"]`, "bot-annotations", "lethe.dev/*", `pods.botAnnotations: "lethe.dev/*" would let in any annotation, or Lethe's own`},
		{`image.retired=["lethe:dev"]`, "retired-images", "registry.example/lethe:v1", "image.retired names lethe:dev, the image of this release"},
		{`image.retired=["` + hex + `"]`, "retired-images", hex, "image.retired: "},
		{`image={"repository":"` + strings.Repeat("a", 255) + `","digest":"sha256:` + hex + `","tag":""}`, "image", strings.Repeat("a", 255) + "@sha256:" + hex, "has more than 300 characters"},
		{`image.pullSecrets=[{"name":"a..b"}]`, "image-pull-secrets", "a..b", "/image/pullSecrets/0/name"},
		{`image.pullSecrets=[` + strings.Join(many, ",") + `]`, "image-pull-secrets", strings.Repeat("x", 250) + "," + strings.Repeat("y", 250), "image.pullSecrets: the names have more than 400 characters"},
		{`kek.file=".."`, "", "", "/kek/file"},
		{`kek.previous=["."]`, "", "", "/kek/previous/0"},
		{`keysNamespace="lethe-system"`, "", "", `keysNamespace is "lethe-system", the namespace of the release`},
		{`keyserver.resources.limits.memory="128Mi"`, "", "", `keyserver.resources.limits.memory: "128Mi" is less than 256Mi`},
		{`keyserver.logLevel=2`, "", "", "/keyserver/logLevel"},
		{`dns.namespace="Kube"`, "", "", "/dns/namespace"},
		{`networkPolicy.metricsNamespace="a.b"`, "", "", "/networkPolicy/metricsNamespace"},
	} {
		if row.flag != "" && takes(row.flag, row.value) == nil {
			t.Errorf("%s: the programs take it", row.set)
		}
		if _, err := renderChart("lethe-system", append(slices.Clone(needed), "--set-json", row.set)...); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: got %v, want an error with %q", row.set, err, row.want)
		}
	}
}

// judged renders one of the chart's judgements over many texts at once: what is wrong with each, or nothing.
func judged(t *testing.T, expression string, texts []string) []string {
	t.Helper()
	checks, err := os.ReadFile(filepath.Join(root, "charts", "lethe", "templates", "_checks.tpl"))
	if err != nil {
		t.Fatal(err)
	}
	values, err := json.Marshal(map[string][]string{"texts": texts})
	if err != nil {
		t.Fatal(err)
	}
	chart := t.TempDir()
	for name, content := range map[string]string{
		"Chart.yaml":            "apiVersion: v2\nname: judged\nversion: 0.0.1\n",
		"values.yaml":           string(values),
		"templates/_checks.tpl": string(checks),
		"templates/all.yaml":    "{{- $all := list -}}\n{{- range .Values.texts -}}\n{{- $all = append $all (include " + expression + ") -}}\n{{- end -}}\nall: {{ $all | toJson }}\n",
	} {
		file := filepath.Join(chart, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	objects := mustRender(render(exec.Command(helm, "template", "judged", chart)))(t)
	if len(objects) != 1 {
		t.Fatalf("%d documents", len(objects))
	}
	var all []string
	for _, problem := range objects[0].Object["all"].([]any) {
		all = append(all, strings.TrimSpace(problem.(string)))
	}
	if len(all) != len(texts) {
		t.Fatalf("%d answers to %d texts", len(all), len(texts))
	}
	return all
}

// TestChartJudgesAsTheProgramsDo: of blocks, ports, annotations and quantities the chart's templates say what the
// flags say, word for word in what is wrong.
func TestChartJudgesAsTheProgramsDo(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 7))
	blocks := []string{"", "/", "1", "::", "::/0", "::1", ":::", ":1::2/128", "1::2::3/64", "1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7:8:9", "1:2:3:4:5:6:7::", "::2:3:4:5:6:7:8/128", "1:2:3:4::5:6:7:8", "g::/32", "12345::/32", "10.0.0.0/08",
		"010.0.0.1/32", "256.0.0.1/32", "1.2.3.4/", "1.2.3.4/33", "1.2.3.4/32/1", "1.2.3.4.5/32", "0.0.0.0/0", "128.0.0.0/1", "10.0.0.0/15", "10.0.0.0/16", "FD00::/31", "fd00::/32", "::ffff:a00:1/128", "::ffff:0:0/96", "::ffff:a00:1", "::fffe:0:0/96",
		"fe80::1%eth0/64", "2001:DB8::A/128", "2001:db8::a/64", "-1.0.0.0/8", "1.2.3.4/-1", "1.2.3.4/999999999999"}
	for range 300 {
		var raw [16]byte
		for i := range raw {
			if random.IntN(3) == 0 {
				raw[i] = byte(random.IntN(256))
			}
		}
		address, bits := netip.AddrFrom16(raw), random.IntN(131)
		if random.IntN(2) == 0 {
			address, bits = netip.AddrFrom4([4]byte(raw[:4])), random.IntN(34)
		}
		if block := netip.PrefixFrom(address, bits); random.IntN(2) == 0 && block.IsValid() {
			address = block.Masked().Addr()
		}
		blocks = append(blocks, fmt.Sprintf("%s/%d", address, bits))
	}
	var ports, annotations []string
	for _, around := range []int{80, 443, 2379, 6443, 8443, 10250, 16443} {
		for port := around - 20; port <= around+20; port++ {
			ports = append(ports, fmt.Sprint(port))
		}
	}
	for _, prefix := range resources.ActedOn() {
		annotations = append(annotations, prefix, prefix+"a", prefix+"*", prefix[:len(prefix)-1]+"*", prefix[:len(prefix)-1], strings.ToUpper(prefix), "x"+prefix)
	}
	annotations = append(annotations, "*", "a*", "a/*", "/*", "lethe.dev/", "lethe.dev/*", "lethe.dev", "example.com/a", "k8s.*", "cdi.k8s.io")
	for _, judgement := range []struct {
		flag, expression string
		texts            []string
	}{
		{"dns-blocks", `"lethe.blockProblem" (dict "text" . "least4" 16 "least6" 32)`, blocks},
		{"closed-addresses", `"lethe.blockProblem" (dict "text" . "least4" 1 "least6" 1)`, blocks},
		{"dns-ports", `"lethe.dnsPortProblem" .`, ports},
		{"pod-annotations", `"lethe.annotationProblem" .`, annotations},
		{"bot-annotations", `"lethe.botAnnotationProblem" .`, annotations},
	} {
		refused, shown := 0, 0
		for i, problem := range judged(t, judgement.expression, judgement.texts) {
			text := judgement.texts[i]
			err := takes(judgement.flag, text)
			if text == "" {
				continue // no flag is given
			}
			if err != nil {
				refused++
			}
			// The reason up to where the program says the block itself.
			reason, _, _ := strings.Cut(problem, ": write ")
			if (err == nil) != (problem == "") || (err != nil && !strings.Contains(err.Error(), reason)) {
				if shown++; shown <= 10 {
					t.Errorf("--%s=%s: the programs say %v, the chart %q", judgement.flag, text, err, problem)
				}
			}
		}
		if refused < 5 || refused == len(judgement.texts) {
			t.Errorf("%s: %d of %d texts are refused", judgement.flag, refused, len(judgement.texts))
		}
	}
	quantities := []string{"256Mi", "255Mi", "0.25Gi", "0.24Gi", "268435456", "268435455", "268435456k", "262144Ki", "262143Ki", "1G", "268M", "269M", "1Ti", "1T"}
	for i, problem := range judged(t, `"lethe.memoryProblem" .`, quantities) {
		quantity := resource.MustParse(quantities[i])
		if (problem == "") != (quantity.Value() >= 256<<20) {
			t.Errorf("%s: the chart says %q", quantities[i], problem)
		}
	}
}
