package guess

import (
	"slices"
	"strings"
	"unicode"
)

// identifying words end or begin the name of a column that holds a pointer.
var identifying = words("id ids uuid uuids guid guids uid uids oid gid sid xid ulid urn pk fk key keys ref refs reference references pointer ptr link no nr num number code slug handle")

// joined are those of them that are written without a separator, as in conversationid.
var (
	joinedEnds   = []string{"uuids", "uuid", "guid", "ids", "id", "key", "ref", "fk"}
	joinedStarts = []string{"fk", "id"}
)

// common words say nothing about what a table holds: messages_tbl, fileinfo, conversations_v2.
var common = words("t tb tbl tab table app data record records row rows entity entities info detail details v ver version main base all new old current archive archived history log list")

func words(list string) map[string]bool {
	out := map[string]bool{}
	for _, w := range strings.Fields(list) {
		out[w] = true
	}
	return out
}

// split takes a name apart: at everything that is no letter, between letters and digits, and where a capital begins a
// word.
func split(name string) []string {
	var out []string
	var word []rune
	end := func() {
		if len(word) > 0 {
			out = append(out, strings.ToLower(string(word)))
			word = nil
		}
	}
	all := []rune(name)
	for i, r := range all {
		switch {
		case !unicode.IsLetter(r) && !unicode.IsDigit(r):
			end()
			continue
		case i == 0 || len(word) == 0:
		case unicode.IsDigit(r) != unicode.IsDigit(all[i-1]):
			end()
		case unicode.IsUpper(r) && unicode.IsLower(all[i-1]):
			end()
		case unicode.IsUpper(r) && unicode.IsUpper(all[i-1]) && i+1 < len(all) && unicode.IsLower(all[i+1]):
			end() // the last capital of IDOwner begins a word
		}
		word = append(word, r)
	}
	end()
	return out
}

// columnWords is split for a column: what is written in one word with id, uuid or fk is taken apart as well.
func columnWords(name string) []string {
	var out []string
	for _, w := range split(name) {
		out = append(out, unjoin(w)...)
	}
	return out
}

func unjoin(w string) []string {
	if identifying[w] {
		return []string{w}
	}
	for _, end := range joinedEnds {
		if rest, ok := strings.CutSuffix(w, end); ok && len(rest) > 2 {
			return []string{rest, end}
		}
	}
	for _, start := range joinedStarts {
		if rest, ok := strings.CutPrefix(w, start); ok && len(rest) > 3 {
			return []string{start, rest}
		}
	}
	return []string{w}
}

// irregular plurals of what products keep.
var irregular = map[string]string{
	"people": "person", "children": "child", "men": "man", "women": "woman", "media": "medium", "data": "datum", "criteria": "criterion",
	"indices": "index", "vertices": "vertex", "matrices": "matrix", "analyses": "analysis", "diagnoses": "diagnosis", "mice": "mouse", "feet": "foot",
}

// stems are what a word may be the plural of, itself among them: which rule holds for a word is not known, so all do.
func stems(w string) []string {
	out := []string{w}
	add := func(suffix, instead string) {
		if rest, ok := strings.CutSuffix(w, suffix); ok && len(rest) > 1 {
			out = append(out, rest+instead)
		}
	}
	add("s", "")
	add("es", "")
	add("ies", "y")
	add("ves", "f")
	add("ves", "fe")
	for many, one := range irregular {
		if rest, ok := strings.CutSuffix(w, many); ok {
			out = append(out, rest+one)
		}
	}
	return out
}

// same says whether two words may be one in singular or plural.
func same(a, b string) bool {
	as, bs := stems(a), stems(b)
	return slices.ContainsFunc(as, func(w string) bool { return slices.Contains(bs, w) })
}

func isNumber(w string) bool { return w != "" && strings.Trim(w, "0123456789") == "" }

// names says whether the words of a column name what is called thing, and whether something stands before it, as in
// parent_message_id. What follows it must be nothing, or begin with a word that identifies or a number.
func names(column []string, thing string) (found, qualified bool) {
	for i := range column {
		for j := i + 1; j <= len(column); j++ {
			if j < len(column) && !identifying[column[j]] && !isNumber(column[j]) {
				continue
			}
			run := strings.Join(column[i:j], "")
			before := slices.ContainsFunc(column[:i], func(w string) bool { return !identifying[w] })
			if same(run, thing) {
				return true, before
			}
			// parentmessageid: written in one word with what stands before.
			if len(thing) > 3 && slices.ContainsFunc(stems(thing), func(s string) bool { return len(s) > 3 && strings.HasSuffix(run, s) && len(run) > len(s) }) && (j < len(column) || len(thing) > 4) && j == i+1 {
				found, qualified = true, true
			}
		}
	}
	return found, qualified
}

// abbreviates says whether the words of a column name the word thing in short, as org_id and msg_id do: its
// beginning, or its consonants, and then a word that identifies.
func abbreviates(column []string, thing string) bool {
	if thing == "" {
		return false
	}
	for i, run := range column {
		if i+1 >= len(column) || !identifying[column[i+1]] || len(run) < 3 || identifying[run] {
			continue
		}
		for _, whole := range stems(thing) {
			if len(run) < len(whole) && (strings.HasPrefix(whole, run) || run[0] == whole[0] && !strings.ContainsAny(run[1:], "aeiou") && within(run, whole)) {
				return true
			}
		}
	}
	return false
}

// within says whether the letters of a stand in b in the same order.
func within(a, b string) bool {
	for _, r := range b {
		if a != "" && r == rune(a[0]) {
			a = a[1:]
		}
	}
	return a == ""
}

// lastWord of a name, without common words: what is abbreviated.
func lastWord(name string) string {
	all := split(name)
	for len(all) > 1 && (common[all[len(all)-1]] || isNumber(all[len(all)-1])) {
		all = all[:len(all)-1]
	}
	if len(all) == 0 {
		return "" // of signs alone
	}
	return all[len(all)-1]
}

// calls are the names of a table or dataset: the whole one, that without common words, and, less sure, the ends of it.
func calls(name string, prefixes []string) (whole, parts []string) {
	all := split(name)
	whole = append(whole, strings.Join(all, ""))
	add := func(list *[]string, words []string) {
		if thing := strings.Join(words, ""); len(thing) > 1 && !isNumber(thing) && !slices.Contains(whole, thing) && !slices.Contains(*list, thing) {
			*list = append(*list, thing)
		}
	}
	bare := slices.Clone(all)
	for len(bare) > 1 && (common[bare[0]] || slices.Contains(prefixes, bare[0])) {
		bare = bare[1:]
	}
	for len(bare) > 1 && (common[bare[len(bare)-1]] || isNumber(bare[len(bare)-1])) {
		bare = bare[:len(bare)-1]
	}
	if len(bare) == 1 {
		for end := range common {
			if rest, ok := strings.CutSuffix(bare[0], end); ok && len(rest) > 3 && len(end) > 3 {
				add(&parts, []string{rest})
			}
		}
	}
	add(&whole, bare)
	for i := 1; i < len(bare); i++ {
		add(&parts, bare[i:])
	}
	slices.Sort(parts)
	return whole, parts
}
