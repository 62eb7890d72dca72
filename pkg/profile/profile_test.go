package profile

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/elsewhere-net/elsewhere/pkg/probe/flight"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

func load(t *testing.T, name string) *pb.Profile {
	t.Helper()
	p, err := Load(name)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestEveryShippedProfileLoadsByItsName(t *testing.T) {
	names := Names()
	if !slices.Contains(names, Default) || len(names) < 3 {
		t.Fatalf("shipped are %v", names)
	}
	for _, name := range names {
		if p := load(t, name); p.GetName() != name || p.GetTitle() == "" {
			t.Errorf("%s.yaml holds the profile %q, %q", name, p.GetName(), p.GetTitle())
		}
	}
}

func TestLoadNamesWhatThereIs(t *testing.T) {
	_, err := Load("cloudfornt")
	if err == nil || !strings.Contains(err.Error(), strings.Join(Names(), ", ")) {
		t.Errorf("got %v", err)
	}
}

func TestLoadGivesEachCallerItsOwn(t *testing.T) {
	load(t, Default).CipherSuites[0] = "changed"
	if got := load(t, Default).GetCipherSuites()[0]; got == "changed" {
		t.Error("a caller changed what others get")
	}
}

// TestCloudFrontOffersItsSixteenSuites: numbers and order are those of the page "Supported protocols and
// ciphers between CloudFront and the origin".
func TestCloudFrontOffersItsSixteenSuites(t *testing.T) {
	page := []string{
		"ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-AES256-SHA384", "ECDHE-ECDSA-AES256-SHA",
		"ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES128-SHA256", "ECDHE-ECDSA-AES128-SHA",
		"ECDHE-RSA-AES256-GCM-SHA384", "ECDHE-RSA-AES256-SHA384", "ECDHE-RSA-AES256-SHA",
		"ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-RSA-AES128-SHA256", "ECDHE-RSA-AES128-SHA",
		"AES256-SHA", "AES128-SHA", "DES-CBC3-SHA", "RC4-MD5",
	}
	var want []string
	for _, name := range page {
		id, ok := flight.Suite(name)
		if !ok {
			t.Fatalf("no suite %s", name)
		}
		want = append(want, flight.SuiteName(id))
	}
	if got := load(t, Default).GetCipherSuites(); !slices.Equal(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
}

func TestCloudFrontAnswersForEveryCause(t *testing.T) {
	has := map[pb.OriginCause]*pb.ProfileCause{}
	for _, c := range load(t, Default).GetCauses() {
		has[c.GetCause()] = c
	}
	for number, name := range pb.OriginCause_name {
		c := has[pb.OriginCause(number)]
		if number != 0 && (c.GetText() == "" || c.GetFix() == "") {
			t.Errorf("%s has no text or no fix", name)
		}
	}
	relayed := []pb.OriginCause{pb.OriginCause_ORIGIN_CAUSE_UPSTREAM, pb.OriginCause_ORIGIN_CAUSE_EDGE}
	for cause, c := range has {
		if (c.GetStatus() == "") != slices.Contains(relayed, cause) {
			t.Errorf("%s has the status %q", cause, c.GetStatus())
		}
	}
}

// whole is a profile that nothing is wrong with.
const whole = `name: ours
versions: [TLS 1.2]
default_versions: [TLS 1.2]
http_ports: ["80", "8000-8999"]
causes:
  - cause: ORIGIN_CAUSE_EXPIRED
    status: "502"
    text: it has expired
    source: { document: our wiki }
sources:
  versions: { document: our wiki, date: 2026-01-02 }
  default_versions: { document: our wiki }
  http_ports: { document: our wiki, unverified: true, note: as far as we know }
`

func TestParseNamesTheLine(t *testing.T) {
	if _, err := Parse([]byte(whole), "ours.yaml"); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ sentence, old, new, want string }{
		{"a field that is unknown", "versions: [TLS 1.2]\nd", "version: [TLS 1.2]\nd", "ours.yaml:2:1 unknown field"},
		{"a version that is unknown", "\nversions: [TLS 1.2]", "\nversions: [TLS 1.2, TLS 9]", `ours.yaml:2:21 versions[1]: "TLS 9" is in no registry`},
		{"a version by another name", "\nversions: [TLS 1.2]", "\nversions: [TLSv1.2]", `ours.yaml:2:12 versions[0]: "TLSv1.2" is TLS 1.2 by IANA's names`},
		{"a version twice", "\nversions: [TLS 1.2]", "\nversions: [TLS 1.2, TLS 1.2]", "ours.yaml:2:21 versions[1]: \"TLS 1.2\" is there twice"},
		{"a default that it does not have", "default_versions: [TLS 1.2]", "default_versions: [TLS 1.3]", `ours.yaml:3:20 default_versions[0]: "TLS 1.3" is not among versions`},
		{"ports the wrong way round", "8000-8999", "8999-8000", "ours.yaml:4:20 http_ports[1]: "},
		{"a port that is none", `"80"`, `"80000"`, "ours.yaml:4:14 http_ports[0]: "},
		{"a status that is none", `"502"`, `"bad"`, "ours.yaml:7:13 causes[0].status: "},
		{"a cause that is unknown", "CAUSE_EXPIRED", "CAUSE_BAD", "ours.yaml:6:12 "},
		{"a cause twice", "causes:\n", "causes:\n  - { cause: ORIGIN_CAUSE_EXPIRED, text: x, source: { document: y } }\n", "ours.yaml:7:12 causes[1].cause: ORIGIN_CAUSE_EXPIRED is there twice"},
		{"a cause without a source", "source: { document: our wiki }", "fix: renew it", "ours.yaml:6:5 causes[0]: has no source"},
		{"a fact without a source", "sources:\n  versions: { document: our wiki, date: 2026-01-02 }", "sources:", "ours.yaml:2:11 versions: has no source"},
		{"a source of nothing", "default_versions: { document: our wiki }", "default_versions: { document: our wiki }\n  port: { document: our wiki }", `ours.yaml:13:9 sources["port"]: "port" is no field`},
		{"a source without a document", "  http_ports: { document: our wiki, ", "  http_ports: { ", "ours.yaml:4:13 http_ports: has no source"},
		{"a date that is none", "2026-01-02", "soon", "ours.yaml:11:41 "},
		{"no name", "name: ours\n", "", "ours.yaml:1:1 name: must not be empty"},
		{"a header smuggled in", "name: ours\n", "name: ours\nuser_agent: \"a\\r\\nb: c\"\n", "ours.yaml:2:13 user_agent: must be printable ASCII"},
		{"a title that steers a terminal", "name: ours\n", "name: ours\ntitle: \"a\\e[2J\"\n", "ours.yaml:2:8 title: must be without control characters"},
		{"a fix that does", "text: it has expired", "text: \"it has\\u202E expired\"", "ours.yaml:6:5 causes[0]: must be without control characters"},
		{"a note that does", "note: as far as we know", "note: \"as\\u0085far\"", `ours.yaml:13:15 sources["http_ports"]: must be without control characters`},
		{"a wait of ten thousand years", "sources:\n", "connect_timeout: 315576000000s\nsources:\n  connect_timeout: { document: our wiki }\n", "ours.yaml:10:18 connect_timeout: must be 0 s to 24 h"},
		{"a wait that is negative", "sources:\n", "connect_timeout: -0.1s\nsources:\n  connect_timeout: { document: our wiki }\n", "ours.yaml:10:18 connect_timeout: must be 0 s to 24 h"},
		{"roots that are none", "name: ours\n", "name: ours\nroots: hello\n", "ours.yaml:2:8 roots: must be certificates in PEM"},
		{"a suffix that would match anything", "name: ours\n", "name: ours\nload_balancer_suffixes: [com]\n", "ours.yaml:2:26 load_balancer_suffixes[0]: must begin with a dot"},
		{"no YAML", "name: ours", "name: [ours", "ours.yaml: yaml: line "},
	} {
		t.Run(c.sentence, func(t *testing.T) {
			text := strings.Replace(whole, c.old, c.new, 1)
			if text == whole {
				t.Fatal("the case changes nothing")
			}
			_, err := Parse([]byte(text), "ours.yaml")
			if err == nil || !strings.HasPrefix(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got  %v\nwant %s…", err, c.want)
			}
		})
	}
}

func TestParseRefusesWhatIsNoText(t *testing.T) {
	for sentence, data := range map[string]string{
		"too large":            "name: x\ntitle: " + strings.Repeat("x", MaxSize),
		"not UTF-8":            "name: \xff",
		"UTF-16":               "\xff\xfen\x00:\x00",
		"empty":                "",
		"a list":               "- a",
		"an alias":             "name: &a x\ntitle: *a",
		"another end of lines": "name: x\u2028\u2028\u2028\u2028versions: [a]",
		"an empty document":    "---",
		"a second document":    whole + "---\n" + whole,
		"a field twice":        whole + "name: theirs\n",
	} {
		if p, err := Parse([]byte(data), "x.yaml"); err == nil {
			t.Errorf("%s: got %v", sentence, p)
		}
	}
}

// block is a block of YAML in a document.
var block = regexp.MustCompile("(?s)```yaml\n(.*?)```")

func TestTheDocumentsExampleParses(t *testing.T) {
	text, err := os.ReadFile("../../docs/profiles.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := block.FindAllSubmatch(text, -1)
	if len(blocks) == 0 {
		t.Fatal("docs/profiles.md has no example")
	}
	for _, b := range blocks {
		if _, err := Parse(b[1], "docs/profiles.md"); err != nil {
			t.Error(err)
		}
	}
	fields := (&pb.Profile{}).ProtoReflect().Descriptor().Fields()
	for i := range fields.Len() {
		if !strings.Contains(string(text), "`"+string(fields.Get(i).Name())+"`") {
			t.Errorf("docs/profiles.md does not say what %s is", fields.Get(i).Name())
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(whole))
	for _, name := range Names() {
		data, err := files.ReadFile(name + ".yaml")
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := Parse(data, "x.yaml")
		if err == nil && Check(p) != nil {
			t.Errorf("%q is parsed and does not pass its checks", data)
		}
	})
}
