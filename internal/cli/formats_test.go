package cli_test

import (
	"encoding/csv"
	"encoding/json"
	"encoding/xml"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/elsewhere-net/elsewhere/internal/cli"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

func TestCSVIsARowForEachStepAboutTheTarget(t *testing.T) {
	c := blocked()
	c.m.Asks[1].Vantage.City = "Dublin, \"West\"\x1b[31m"
	got := newWorld(t).at(c.serve(t)).run(t, "tcp", "example.com:443", "--format", "csv")
	rows, err := csv.NewReader(strings.NewReader(got.out)).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	want := [][]string{
		{"measurement", "agent", "region", "country", "city", "provider", "asn", "kind", "name", "address", "failure", "failures", "duration_ms", "attempts", "answers", "version", "status"},
		{theID, "ap-1", "ap-south", "", "Mumbai", "AWS", "64500", "dns_query", "example.com", "192.0.2.53:53", "none", "", "3.000", "1", "", "", ""},
		{theID, "ap-1", "ap-south", "", "Mumbai", "AWS", "64500", "tcp_connect", "", "203.0.113.10:443", "tcp_timeout", "tcp_timeout", "8100.000", "2", "", "", ""},
		{theID, "eu-1", "eu-west", "", `Dublin, "West"\x1b[31m`, "AWS", "64500", "dns_query", "example.com", "192.0.2.53:53", "none", "", "3.000", "1", "", "", ""},
	}
	if diff := cmp.Diff(want, rows[:4]); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
	if len(rows) != 7 {
		t.Errorf("%d rows, want a head and 6: controls have none", len(rows))
	}
}

func TestJSONLinesAreResultsAndLastTheMeasurementWithoutThem(t *testing.T) {
	got := newWorld(t).at(blocked().serve(t)).run(t, "tcp", "example.com:443", "--format", "jsonl")
	lines := strings.Split(strings.TrimSuffix(got.out, "\n"), "\n")
	if len(lines) != 4 {
		t.Fatalf("%d lines, want 4:\n%s", len(lines), got.out)
	}
	for i, line := range lines {
		var doc struct {
			Agent, ID string
			Steps     []any
			Results   []any
			Verdict   *struct{ Outcome string }
		}
		if err := json.Unmarshal([]byte(line), &doc); err != nil {
			t.Fatal(err)
		}
		switch {
		case i < 3 && (doc.Agent == "" || len(doc.Steps) != 3):
			t.Errorf("line %d is no result: %s", i, line)
		case i == 3 && (doc.ID != theID || len(doc.Results) != 0 || doc.Verdict.Outcome != "OUTCOME_FAIL"):
			t.Errorf("the last line is no measurement: %s", line)
		}
	}
}

func TestJUnitIsATestCaseForEachRegion(t *testing.T) {
	c := blocked()
	c.m.Asks = append(c.m.Asks, &pb.Ask{Agent: "sa-1", Vantage: &pb.Vantage{Region: "sa-east"}, State: pb.AskState_ASK_STATE_LOST})
	c.m.Verdict.Findings[0].Summary = "no answer from <203.0.113.10>\x00 & co"
	got := newWorld(t).at(c.serve(t)).run(t, "tcp", "example.com:443", "--format", "junit")
	var doc struct {
		Suite struct {
			Name     string `xml:"name,attr"`
			Tests    int    `xml:"tests,attr"`
			Failures int    `xml:"failures,attr"`
			Skipped  int    `xml:"skipped,attr"`
			Cases    []struct {
				Name    string `xml:"name,attr"`
				Failure *struct {
					Type    string `xml:"type,attr"`
					Message string `xml:"message,attr"`
				} `xml:"failure"`
				Skipped *struct{} `xml:"skipped"`
			} `xml:"testcase"`
		} `xml:"testsuite"`
	}
	if err := xml.Unmarshal([]byte(got.out), &doc); err != nil {
		t.Fatalf("%v\n%s", err, got.out)
	}
	s := doc.Suite
	if s.Name != "tcp example.com:443" || s.Tests != 4 || s.Failures != 1 || s.Skipped != 1 {
		t.Errorf("suite %q: %d tests, %d failures, %d skipped\n%s", s.Name, s.Tests, s.Failures, s.Skipped, got.out)
	}
	for _, c := range s.Cases {
		if (c.Failure != nil) != (c.Name == "ap-south") || (c.Skipped != nil) != (c.Name == "sa-east") {
			t.Errorf("%s: failure %v, skipped %v", c.Name, c.Failure, c.Skipped)
		}
	}
	if f := s.Cases[0].Failure; f == nil || f.Type != "regional_block" || f.Message != `no answer from <203.0.113.10>\x00 & co allow ap-south.` {
		t.Errorf("failure %+v", f)
	}
}

func TestShortIsTheDistinctAnswersOfEachRegion(t *testing.T) {
	c := blocked()
	for i, r := range c.m.Results {
		s := r.Steps[0]
		r.Steps = []*pb.Step{s}
		s.Evidence = &pb.Evidence{Replies: []*pb.DNSReply{{Rcode: "NOERROR", Answers: []*pb.Record{
			{Type: "CNAME", Data: "elsewhere.example."}, {Type: "TXT", Data: "\"b\x1b\""}, {Type: "TXT", Data: `"a"`},
		}}}}
		if i == 0 {
			s.Failure, s.Failures, s.Evidence = pb.Failure_FAILURE_DNS_SERVFAIL, []pb.Failure{pb.Failure_FAILURE_DNS_SERVFAIL}, nil
		}
	}
	got := newWorld(t).at(c.serve(t)).run(t, "dns", "example.com", "txt", "+short")
	want := "eu-west\t\"a\"\neu-west\t\"b\\x1b\"\nus-east\t\"a\"\nus-east\t\"b\\x1b\"\n"
	if diff := cmp.Diff(want, got.out); diff != "" {
		t.Error(diff)
	}
	if got.err != "ap-south: dns_servfail\n" || got.code != cli.ExitFail {
		t.Errorf("stderr %q, exit %d", got.err, got.code)
	}
}

// fleet is a coordinator with two agents.
func fleet() *coordinator {
	c := blocked()
	c.agents = []*pb.Agent{
		{
			Id: "ap-1", Vantage: &pb.Vantage{Region: "ap-south", Country: "IN", City: "Mumbai\u009b2J", Provider: "AWS", Asn: 64500, Ipv4: true},
			State: pb.AgentState_AGENT_STATE_ONLINE, Running: 3, Capacity: 256, LastSeenTime: timestamppb.New(time.Now()),
		},
		{Id: "eu-1", Vantage: &pb.Vantage{Region: "eu-west", Ipv4: true, Ipv6: true}, State: pb.AgentState_AGENT_STATE_OFFLINE},
	}
	return c
}

func TestAgentsAreATable(t *testing.T) {
	c := fleet()
	got := newWorld(t).at(c.serve(t)).run(t, "agents", "from", "Germany+AWS")
	lines := strings.Split(got.out, "\n")
	want := []string{
		"ID REGION COUNTRY CITY PROVIDER AS FAMILIES STATE LAST SEEN JOBS",
		`ap-1 ap-south IN Mumbai\u009b2J AWS AS64500 IPv4 online 0.X ms ago 3/256`,
		"eu-1 eu-west - - - - IPv4+IPv6 offline - 0/0",
		"",
	}
	for i := range lines {
		lines[i] = strings.Join(strings.Fields(lines[i]), " ")
	}
	if i, j := strings.Index(lines[1], "online ")+7, strings.Index(lines[1], " ago"); i > 6 && j > i {
		lines[1] = lines[1][:i] + "0.X ms" + lines[1][j:]
	}
	if diff := cmp.Diff(want, lines); diff != "" || got.code != 0 {
		t.Errorf("exit %d, (-want +got):\n%s", got.code, diff)
	}
	if c.listed[0].GetFrom() != "Germany+AWS" {
		t.Errorf("asked %q", c.listed[0].GetFrom())
	}
}

func TestAgentsAsDataAreTheResponse(t *testing.T) {
	w := newWorld(t).at(fleet().serve(t))
	var doc struct{ Agents []struct{ ID, State string } }
	got := w.run(t, "agents", "-J")
	if err := json.Unmarshal([]byte(got.out), &doc); err != nil || len(doc.Agents) != 2 || doc.Agents[0].State != "AGENT_STATE_ONLINE" {
		t.Errorf("%v\n%s", err, got.out)
	}
	if strings.Contains(got.out, "\u009b") {
		t.Errorf("a control character of C1 is written as it is: %q", got.out)
	}
	if got := w.run(t, "agents", "-6", "--format", "jsonl"); strings.Count(got.out, "\n") != 1 || !strings.Contains(got.out, `"eu-1"`) {
		t.Errorf("-6 lists\n%s", got.out)
	}
	if got := w.run(t, "agents", "-L", "1", "--format", "csv"); strings.Count(got.out, "\n") != 2 || !strings.HasPrefix(got.out, "id,region,") {
		t.Errorf("-L 1 lists\n%s", got.out)
	}
	empty := newWorld(t).at(blocked().serve(t))
	if got := empty.run(t, "agents", "-J"); strings.Join(strings.Fields(got.out), "") != `{"agents":[]}` || got.code != 0 {
		t.Errorf("no agents: %q, exit %d", got.out, got.code)
	}
	if got := empty.run(t, "agents"); got.out != "" || got.err != "none\n" || got.code != 0 {
		t.Errorf("no agents: %q, %q, exit %d", got.out, got.err, got.code)
	}
}

func TestMeasurementsAreListedPageByPage(t *testing.T) {
	w := newWorld(t).at(blocked().serve(t))
	got := w.run(t, "measurements")
	lines := strings.Split(strings.TrimSuffix(got.out, "\n"), "\n")
	if len(lines) != 21 || got.code != 0 {
		t.Fatalf("%d lines, exit %d; want a head and 20", len(lines), got.code)
	}
	want := theID + " 2027-03-04T05:06:07Z finished FAIL tcp example.com:443 from world 3/4"
	if diff := cmp.Diff(want, strings.Join(strings.Fields(lines[1]), " ")); diff != "" {
		t.Error(diff)
	}
	var doc struct{ Measurements []struct{ ID string } }
	got = w.run(t, "measurements", "-J", "-L", "100")
	if err := json.Unmarshal([]byte(got.out), &doc); err != nil || len(doc.Measurements) != 31 {
		t.Errorf("%v; %d measurements, want 31 of two pages", err, len(doc.Measurements))
	}
}

func TestShowLeavesOutLateResults(t *testing.T) {
	got := newWorld(t).at(blocked().serve(t)).run(t, "show", strings.ToUpper(theID))
	if strings.Contains(got.out, "late-1") || !strings.Contains(got.out, "eu-1") || got.code != cli.ExitFail {
		t.Errorf("exit %d\n%s", got.code, got.out)
	}
}

func TestVersionSaysProgramGoAndJudge(t *testing.T) {
	w := newWorld(t)
	var doc struct{ Version, Go, Judge string }
	if err := json.Unmarshal([]byte(w.run(t, "version", "-J").out), &doc); err != nil || doc.Version != "v0.0.0-test" || doc.Go == "" || doc.Judge == "" {
		t.Errorf("%v %+v", err, doc)
	}
	if got := w.run(t, "version"); !strings.HasPrefix(got.out, "elsewhere v0.0.0-test\n") || got.code != 0 {
		t.Errorf("%q, exit %d", got.out, got.code)
	}
}

func TestEveryCommandHasHelpWithExamples(t *testing.T) {
	w := newWorld(t)
	for _, name := range []string{"dns", "tcp", "tls", "http", "origin", "propagation", "agents", "measurements", "show", "watch", "version"} {
		got := w.run(t, name, "--help")
		if got.code != 0 || got.err != "" || !strings.Contains(got.out, "Examples:\n  elsewhere "+name) {
			t.Errorf("%s: exit %d\n%s", name, got.code, got.out)
		}
		if again := w.run(t, "help", name); again.out != got.out {
			t.Errorf("help %s differs from %s --help", name, name)
		}
	}
}
