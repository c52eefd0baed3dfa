package resources

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/distribution/reference"
	"sigs.k8s.io/yaml"
)

// images as people write them, and as they should not.
func images() []string {
	sha := strings.Repeat("0a", 32)
	return []string{
		"bot", "bot:v1", "bot:V1_a.b-c", "library/bot", "registry.example/bot", "registry.example:5000/team/bot:v1", "localhost/bot", "localhost:5000/bot", "[fd00::1]:5000/bot", "10.0.0.1/bot",
		"bot@sha256:" + sha, "bot:v1@sha256:" + sha, "bot@sha512:" + sha + sha, "bot@sha384:" + strings.Repeat("0a", 48), "bot@sha256:" + sha[1:], "bot@sha256:" + strings.ToUpper(sha), "bot@md5:" + sha, "bot@sha512:" + sha,
		"Registry.Example/bot", "REG/bot", "registry.example/Bot", "Bot", "BOT:v1", "https://registry.example/bot:v1", "docker://registry.example/bot", "oci://bot", "docker-daemon:bot:v1", "//bot", "/bot", "bot/", "bot:", "bot@", ":v1",
		"bot ", " bot", "bot\n", "bot\t", "the bot", "bot:v 1", "bot:-v1", "bot:.v1", "bot:" + strings.Repeat("v", 128), "bot:" + strings.Repeat("v", 129), "a__b/c", "a___b/c", "a--b/c", "a..b/c", "a.-b", "a_.b", "-bot", "bot-", "_bot", "bot_",
		"registry.example:/bot", "registry.example:x/bot", "re_gistry.example/bot", "registry_example/bot", "registry..example/bot", "registry.example//bot", "registry.example/bot//x", "[::1/bot", "[x]/bot", sha, sha + ":v1", sha + "x", "x/" + sha,
		"bot:v1:v2", "bot@sha256:" + sha + "@sha256:" + sha, "böt", "bot\x00", "", "https:bot", "user@registry.example/bot", "user:secret@registry.example/bot", "registry.example/" + strings.Repeat("a", 200), "bot?x=y", "bot#1", "$(IMAGE)", "${IMAGE}", "bot:latest ",
	}
}

// TestImagesAreWhatKubeletsTake: by the very library that a kubelet parses an image's name with.
func TestImagesAreWhatKubeletsTake(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	pieces := append(strings.Split("a b0 A Z .. . _ __ ___ - -- / // : @ [ ] :: 5000 localhost example.com v1 sha256 sha512 md5 https:// docker.io library", " "), " ", "\n",
		"@sha256:"+strings.Repeat("0a", 32), ":v1", "registry.example/")
	all, taken := images(), 0
	for range 40_000 {
		var s strings.Builder
		for range 1 + random.IntN(6) {
			s.WriteString(pieces[random.IntN(len(pieces))])
		}
		all = append(all, s.String())
	}
	for _, image := range all {
		_, err := reference.ParseNormalizedNamed(image)
		// Such a registry is read as the first part of Docker Hub's repository, and is no host that could be asked.
		if domain, _, ok := strings.Cut(image, "/"); ok && err == nil && strings.Contains(domain, "_") && strings.Contains(domain, ".") {
			continue
		}
		if ours := CheckImage(image); (ours == nil) != (err == nil) {
			t.Errorf("%q: we say %v, a kubelet %v", image, ours, err)
		}
		if err == nil {
			taken++
		}
	}
	if taken < 1000 || taken > len(all)-1000 {
		t.Errorf("%d of %d are images", taken, len(all))
	}
	if CheckImage("registry.example/"+strings.Repeat("a", 300)) == nil {
		t.Error("a repository of 300 characters is taken")
	}
	for image, says := range map[string]string{"https://r.example/bot": "leave out the scheme", "bot ": "without spaces", "r.example/Bot": "lower case", "bot:": "written as", "r.example/" + strings.Repeat("a", 300): "at most 255"} {
		if err := CheckImage(image); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%.40q: %v, want %q", image, err, says)
		}
	}
}

// TestOneGrammarOfImages: every field of our kinds that holds an image's name has the rule.
func TestOneGrammarOfImages(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("..", "..", "config", "crd", "bases", "*.yaml"))
	if err != nil || len(files) != 4 {
		t.Fatal(files, err)
	}
	fields, rules := 0, 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var crd map[string]any
		if err := yaml.Unmarshal(text, &crd); err != nil {
			t.Fatal(err)
		}
		fields += len(regexp.MustCompile(`(?m)^ +[a-z]*[iI]mage:$`).FindAllString(string(text), -1))
		rules += strings.Count(fmt.Sprint(crd), "self.image.matches('"+ImagePattern+"')")
	}
	if fields != 2 || rules != fields {
		t.Errorf("%d fields hold an image, and %d have the rule", fields, rules)
	}
}
