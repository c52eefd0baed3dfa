package alerts

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Headings of a runbook's page, in their order.
const (
	headingMeans = "What it means"
	headingLook  = "What to look at"
	headingDo    = "What to do"
	headingOver  = "How to know that it is over"
)

var headings = []string{headingMeans, headingLook, headingDo, headingOver}

// section of a page, as it stands there.
func section(t *testing.T, alert, heading string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(root, "docs", "runbooks", alert+".md"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(content), "\n## "+heading+"\n")
	if !found {
		t.Fatalf("%s.md has no section %q", alert, heading)
	}
	text, _, _ := strings.Cut(rest, "\n## ")
	return text
}

// TestEachAlertHasARunbook, of four sections that say something, and each page an alert.
func TestEachAlertHasARunbook(t *testing.T) {
	rules := readRules(t).all()
	files, err := filepath.Glob(filepath.Join(root, "docs", "runbooks", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	index, err := os.ReadFile(filepath.Join(root, "docs", "runbooks", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	heading := regexp.MustCompile(`(?m)^## (.*)$`)
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".md")
		if name == "README" {
			continue
		}
		if _, ok := rules[name]; !ok {
			t.Errorf("%s.md is about no alert", name)
		}
		delete(rules, name)
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, match := range heading.FindAllStringSubmatch(string(content), -1) {
			got = append(got, match[1])
		}
		if !strings.HasPrefix(string(content), "# "+name+"\n") || !slices.Equal(got, headings) {
			t.Errorf("%s.md has the headings %q", name, got)
		}
		for _, h := range headings {
			if len(strings.TrimSpace(section(t, name, h))) < 20 {
				t.Errorf("%s.md says nothing of %q", name, h)
			}
		}
		if !strings.Contains(section(t, name, headingLook), "```sh\n") {
			t.Errorf("%s.md names no command to look with", name)
		}
		if !strings.Contains(string(index), "["+name+"]("+name+".md)") {
			t.Errorf("the index does not name %s", name)
		}
	}
	for name := range rules {
		t.Errorf("there is no docs/runbooks/%s.md", name)
	}
}

var shell = regexp.MustCompile("(?s)```sh\n(.*?)```")

// run does what a section of a page says, word by word.
func (p *prometheus) run(alert, heading string) {
	p.t.Helper()
	p.ran[alert+heading] = true
	for _, block := range shell.FindAllStringSubmatch(section(p.t, alert, heading), -1) {
		for line := range strings.Lines(block[1]) {
			p.command(alert, heading, strings.TrimSpace(line))
		}
	}
}

// mend does what the page says is to be done.
func (p *prometheus) mend(alert string) {
	p.t.Helper()
	if !strings.Contains(section(p.t, alert, headingDo), "```sh\n") {
		p.t.Fatalf("%s.md has no command that mends it", alert)
	}
	p.run(alert, headingDo)
}

// runbooksWereRun: a command of any page that nobody tried is one that may not work.
func (p *prometheus) runbooksWereRun() {
	p.t.Helper()
	for name := range p.rules {
		for _, heading := range headings {
			if strings.Contains(section(p.t, name, heading), "```sh\n") && !p.ran[name+heading] {
				p.t.Errorf("nobody ran what %s.md says in %q", name, heading)
			}
		}
	}
}

// command runs a line in a shell. Two answers are no failure: that a store is not compliant, while the alert says so;
// and, here, where no kubelet runs our programs, that there is no such Deployment to have a log or to roll out.
func (p *prometheus) command(alert, heading, line string) {
	p.t.Helper()
	out, err := exec.CommandContext(p.t.Context(), "sh", "-c", line).CombinedOutput()
	if err == nil {
		return
	}
	isVerdict := heading == headingLook && strings.HasPrefix(line, "kubectl lethe verify ") && strings.Contains(string(out), "1 of 1 stores are failing")
	ofPods := (strings.Contains(line, " logs ") || strings.Contains(line, " rollout status ")) && strings.Contains(string(out), `deployments.apps "lethe-`)
	if !isVerdict && !ofPods {
		p.t.Errorf("%s.md: %s: %v\n%s", alert, line, err, out)
	}
}
