package allowlist

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"

	"github.com/elsewhere-net/elsewhere/internal/yamlfile"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// rule is a file with one rule of these lines, which begin in line 3.
func rule(lines ...string) string {
	return "version: 1\nrules:\n  - " + strings.Join(lines, "\n    ") + "\n"
}

const good = `version: 1
rules:
  - name: partners reach the API
    target: api.example.com:443
    allow: [us-east, eu-west+AWS]
    deny:
      - ap-south
      - { from: sa-east, as: drop }
      - { from: "NO", as: refused }
      - { from: DE,   as: any }
  - target: "[2001:db8::1]:8443"
    protocol: tls
    deny: [world]
  - target: www.example.com:8443
    protocol: http
    allow: ["~eu,  AS64500 + canary"]
`

func TestAGoodFile(t *testing.T) {
	rules, err := Parse("f.yaml", []byte(good))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range rules {
		for _, d := range r.Doors {
			spec := d.Question.Spec
			target := fmt.Sprint(spec.GetTcp().GetHost(), spec.GetTls().GetHost(), spec.GetHttp().GetUrl(), " ", spec.GetTcp().GetPort()+spec.GetTls().GetPort())
			got = append(got, fmt.Sprintf("%d %s: %s %s from %s", r.Line, r.Name, target, d.Expect, d.Question.From))
		}
	}
	want := []string{
		"3 partners reach the API: api.example.com 443 REACHABILITY_OPEN from us-east,eu-west+aws",
		"3 partners reach the API: api.example.com 443 REACHABILITY_BLOCKED from ap-south,de",
		"3 partners reach the API: api.example.com 443 REACHABILITY_REFUSED from no",
		"3 partners reach the API: api.example.com 443 REACHABILITY_DROPPED from sa-east",
		"11 [2001:db8::1]:8443: 2001:db8::1 8443 REACHABILITY_BLOCKED from world",
		"14 www.example.com:8443: https://www.example.com:8443/ 0 REACHABILITY_OPEN from ~eu,as64500+canary",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for _, r := range rules {
		for _, d := range r.Doors {
			spec := d.Question.Spec
			if e := max(spec.GetTcp().GetExpect(), spec.GetTls().GetExpect(), spec.GetHttp().GetExpect()); e != d.Expect {
				t.Errorf("%s asks for %v, not for %v", r.Name, e, d.Expect)
			}
		}
	}
}

// bad are files with one problem each. deep says that the schema cannot know it.
var bad = []struct {
	sentence, file, want string
	deep                 bool
}{
	{"nothing", "", "1:1: the file is empty", true},
	{"only a comment", "# nothing\n", "1:1: the file is empty", true},
	{"no YAML", "version: 1\nrules: [\n", "this is not YAML", true},
	{"a tab for indentation", "version: 1\nrules:\n\t- target: a:1\n", "3:1: this is not YAML: found character that cannot start any token", true},
	{"two documents", good + "---\nversion: 1\n", "a second document", true},
	{"a list", "- version: 1\n", "1:1: an allowlist is a list; it has version and rules", false},
	{"no version", "rules:\n  - target: a:1\n    allow: [x]\n", "1:1: there is no version; begin with version: 1", false},
	{"another version", strings.Replace(good, "version: 1", "version: 2", 1), `1:10: version "2" is not known; it is 1`, false},
	{"a version that is text", strings.Replace(good, "version: 1", `version: "1"`, 1), `1:10: version "1" is not known`, false},
	{"no rules", "version: 1\n", "1:1: there are no rules", false},
	{"an empty list of rules", "version: 1\nrules: []\n", "2:8: rules is empty", false},
	{"rules that are nothing", "version: 1\nrules:\n", "2:7: rules is empty; it is a list", false},
	{"a rule that is a word", "version: 1\nrules: [a]\n", `2:9: a rule is "a"; it has name, target, protocol, allow and deny`, false},
	{"an unknown key above", "version: 1\nrule: []\n" + strings.TrimPrefix(good, "version: 1\n"), `2:1: unknown key "rule"; an allowlist has version and rules`, false},
	{"an unknown key", rule("target: a:1", "alow: [x]", "allow: [x]"), `4:5: unknown key "alow"; a rule has name, target, protocol, allow and deny`, false},
	{"an unknown key of a denial", rule("target: a:1", "deny: [{form: x, from: x}]"), `4:13: unknown key "form"; an item of deny has from and as`, false},
	{"a merge key", rule("target: a:1", "allow: [x]", "<<: {}"), `5:5: unknown key "<<"`, true},
	{"a key twice", rule("target: a:1", "allow: [x]", "allow: [y]"), "5:5: allow is there twice, first in line 4", true},
	{"no target", rule("allow: [x]"), "3:5: the rule has no target", false},
	{"an empty target", rule("target: ''", "allow: [x]"), "3:13: target is empty", false},
	{"a target without a port", rule("target: a.example", "allow: [x]"), `3:13: target: "a.example" has no port; write HOST:PORT`, false},
	{"port 0", rule("target: a.example:0", "allow: [x]"), `port "0" is not a number from 1 to 65535`, false},
	{"port 65536", rule("target: a.example:65536", "allow: [x]"), `port "65536" is not a number`, false},
	{"port https", rule("target: a.example:https", "allow: [x]"), `port "https" is not a number`, false},
	{"a target that is a number", rule("target: 443", "allow: [x]"), `3:13: target is "443"; it is text`, false},
	{"a target that YAML takes for a number of base 60", rule("target: 10:20", "allow: [x]"), `the host "10" is neither`, true},
	{"a name with an empty label", rule("target: a..b:1", "allow: [x]"), "empty label", true},
	{"a URL for tcp", rule("target: https://a.example/", "allow: [x]"), "is a URL; write HOST:PORT", false},
	{"a URL with a user", rule("target: https://u@a.example/", "protocol: http", "allow: [x]"), "has a user", false},
	{"another protocol", rule("target: a:1", "protocol: udp", "allow: [x]"), `4:15: protocol "udp" is not known; it is tcp, tls or http`, false},
	{"a protocol of a list", rule("target: a:1", "protocol: [tcp]", "allow: [x]"), "4:15: protocol is a list; it is text", false},
	{"neither allow nor deny", rule("target: a:1"), "3:5: the rule has neither allow nor deny", false},
	{"an empty allow", rule("target: a:1", "allow: []"), "4:12: allow is empty; each item is a selector", false},
	{"an allow that is nothing", rule("target: a:1", "allow:"), "4:11: allow is empty; it is a list", false},
	{"an allow that is a word", rule("target: a:1", "allow: us-east"), `4:12: allow is "us-east"; it is a list`, false},
	{"how it should be open", rule("target: a:1", "allow: [{from: x, as: drop}]"), "4:13: a selector is a mapping; it is text", false},
	{"a selector that is a number", rule("target: a:1", "deny: [64500]"), `4:12: a selector is "64500"; it is text`, false},
	{"a selector that is true", rule("target: a:1", "deny: [true]"), `4:12: a selector is "true"`, false},
	{"an empty selector", rule("target: a:1", "deny: ['']"), "4:12: a selector is empty", false},
	{"a selector with an empty word", rule("target: a:1", "deny: [a++b]"), `4:12: the selector "a++b": an empty word; write "a+b" for both`, false},
	{"a selector of an empty item", rule("target: a:1", "deny: ['a,,b']"), "an empty word", false},
	{"the agents of before", rule("target: a:1", "deny: [last]"), "from places, not from the last measurement", true},
	{"another way to be shut", rule("target: a:1", "deny: [{from: x, as: dropped}]"), `4:26: as: "dropped" is not known; a door is shut as any, refused or drop`, false},
	{"a denial from nowhere", rule("target: a:1", "deny: [{as: drop}]"), "4:12: the item has no from", false},
	{"an alias", rule("target: a:1", "allow: &x [y]", "deny: *x"), "5:11: deny is an alias, which is not supported", true},
	{"a name of two lines", rule(`name: "a\nb"`, "target: a:1", "allow: [x]"), "3:11: name holds a control character or a line break", true},
	{"an empty name", rule("name: ''", "target: a:1", "allow: [x]"), "3:11: name is empty", false},
	{"a name of 101 bytes", rule("name: "+strings.Repeat("n", 101), "target: a:1", "allow: [x]"), "3:11: the name has 101 bytes; at most 100", false},
	{"one name twice", good + "  - name: partners reach the API\n    target: a:1\n    allow: [x]\n", `17:5: the rule "partners reach the API" is there twice, first in line 3`, true},
	{"one target twice, without names", rule("target: a:1", "allow: [x]") + "  - target: a:1\n    deny: [y]\n", `5:5: the rule "a:1" is there twice, first in line 3`, true},
	{"257 rules", "version: 1\nrules:\n" + strings.Repeat("  - {target: a:1, allow: [x]}\n", 257), "259:5: 257 rules are too many; at most 256", false},
	{"more selectors than one question can have", rule("target: a:1", "allow: ["+strings.Repeat("a, ", 64)+"b]"), "65 words; at most 64; make two rules of it", true},
}

func TestBadFiles(t *testing.T) {
	for _, c := range bad {
		t.Run(c.sentence, func(t *testing.T) {
			_, err := Parse("f.yaml", []byte(c.file))
			var problems *yamlfile.Problems
			if !errors.As(err, &problems) {
				t.Fatalf("taken: %v", err)
			}
			text := err.Error()
			if !strings.HasPrefix(text, "f.yaml:") || !strings.Contains(text, c.want) || len(problems.List) > 1 {
				t.Errorf("got %s\nwant one line with %q", text, c.want)
			}
		})
	}
}

// TestTheSchemaAgrees holds the same files against the schema: it takes what the reader takes, and
// refuses what is wrong with the shape.
func TestTheSchemaAgrees(t *testing.T) {
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(Schema))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("schema.json", doc); err != nil {
		t.Fatal(err)
	}
	schema, err := c.Compile("schema.json")
	if err != nil {
		t.Fatal(err)
	}
	validate := func(file string) error {
		var value any
		if err := yaml.Unmarshal([]byte(file), &value); err != nil {
			return err
		}
		raw, err := json.Marshal(value)
		if err != nil {
			return err
		}
		instance, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
		if err != nil {
			return err
		}
		return schema.Validate(instance)
	}
	for _, file := range []string{good, rule("target: https://a.example/x?y", "protocol: http", "allow: [x]"), rule("target: 192.0.2.1:1", "deny: [' a + b , c ']")} {
		if _, err := Parse("f.yaml", []byte(file)); err != nil {
			t.Errorf("the reader: %v", err)
		}
		if err := validate(file); err != nil {
			t.Errorf("the schema: %v", err)
		}
	}
	for _, b := range bad {
		if !b.deep && validate(b.file) == nil {
			t.Errorf("%s: the schema takes it", b.sentence)
		}
	}
}

func TestAllProblemsAreListedUpTo20(t *testing.T) {
	file := "version: 1\nrules:\n" + strings.Repeat("  - {target: a, allow: [x]}\n", 30)
	_, err := Parse("f.yaml", []byte(file))
	lines := strings.Split(err.Error(), "\n")
	if len(lines) != 20 || lines[19] != "f.yaml:22:14: and 11 more problems from here on" {
		t.Errorf("%d lines, the last one %q", len(lines), lines[len(lines)-1])
	}
}

// TestTheDocumentsExampleIsOne reads the file that docs/allowlist.md shows.
func TestTheDocumentsExampleIsOne(t *testing.T) {
	text, err := os.ReadFile("../../../docs/allowlist.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "```yaml\n")
	example, _, found := strings.Cut(rest, "```")
	if rules, err := Parse("f.yaml", []byte(example)); !found || err != nil || len(rules) != 1 || len(rules[0].Doors) != 3 {
		t.Errorf("%v, %v", rules, err)
	}
}

func TestPlan(t *testing.T) {
	agent := func(id, region, provider string) *pb.Agent {
		return &pb.Agent{Id: id, Vantage: &pb.Vantage{Region: region, Provider: provider}}
	}
	fleet := []*pb.Agent{agent("us-1", "us-east", "AWS"), agent("us-2", "us-east", "GCP"), agent("ap-1", "ap-south", "AWS")}
	for _, c := range []struct {
		sentence, file, want string
		nobody               bool
	}{
		{"every selector means somebody", rule("target: a:1", "allow: [us-east]", "deny: [ap-south]"), "", false},
		{"agents of one region, told apart", rule("target: a:1", "allow: [us-east+AWS]", "deny: [us-east+GCP]"), "", false},
		{"a selector that means nobody", rule("target: a:1", "allow: [us-east]", "deny: [ap-sout]"), `f.yaml:5:12: rule "a:1": no agent matches "ap-sout"`, true},
		{"an item of a selector", rule("target: a:1", "allow: ['us-east,mars']"), `4:13: rule "a:1": no agent matches "mars"`, true},
		{
			"one place in and out", rule("name: n", "target: a:1", "allow: [world]", "deny: [ap-south]"),
			`f.yaml:6:12: rule "n": ap-south (agent ap-1) should be blocked by "ap-south" and open by "world" in line 5; take it out of one of them`, false,
		},
		{
			"one place shut in two ways", rule("target: a:1", "deny: [{from: AWS, as: drop}, ap-south]"),
			`ap-south (agent ap-1) should be dropped by "AWS" and blocked by "ap-south" in line 4`, false,
		},
	} {
		t.Run(c.sentence, func(t *testing.T) {
			rules, err := Parse("f.yaml", []byte(c.file))
			if err != nil {
				t.Fatal(err)
			}
			err = Plan("f.yaml", rules, fleet)
			var nobody *NobodyError
			switch {
			case c.want == "" && err != nil, c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("got %v, want %q", err, c.want)
			case errors.As(err, &nobody) != c.nobody:
				t.Errorf("nobody: %v", !c.nobody)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add(good)
	for _, c := range bad {
		if len(c.file) < 1000 {
			f.Add(c.file)
		}
	}
	f.Fuzz(func(t *testing.T, file string) {
		rules, err := Parse("f.yaml", []byte(file))
		if err != nil {
			for line := range strings.SplitSeq(err.Error(), "\n") {
				if !strings.HasPrefix(line, "f.yaml:") {
					t.Errorf("a line of its own: %q", line)
				}
			}
			return
		}
		for _, r := range rules {
			if r.Name == "" || len(r.Doors) == 0 {
				t.Errorf("a rule without a name or a door: %+v", r)
			}
		}
	})
}
