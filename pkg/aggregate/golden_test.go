package aggregate

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// Golden verdicts: testdata/golden/NAME.json.gz is a Measurement with the Results that real agents sent, and
// is never written again; NAME.json is what the judge makes of it.
//
//	go test ./pkg/aggregate -run TestGolden -update             # the verdicts anew: the diff is to be reviewed
//	go test ./pkg/aggregate -run TestGolden -import DIR -update # more measurements, as `elsewhere … -J` prints them
var (
	update     = flag.Bool("update", false, "write the golden verdicts anew")
	importFrom = flag.String("import", "", "take the measurements of this directory among the golden ones")
)

const golden = "testdata/golden"

func TestGolden(t *testing.T) {
	if *importFrom != "" {
		importAll(t, *importFrom)
	}
	names, err := filepath.Glob(golden + "/*.json.gz")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".json.gz"), func(t *testing.T) { checkGolden(t, name) })
	}
	verdicts, err := filepath.Glob(golden + "/*.json")
	if err != nil || len(names) < 25 || len(verdicts) != len(names) {
		t.Errorf("%d measurements with %d verdicts, %v: there are to be at least 25, each with its own", len(names), len(verdicts), err)
	}
}

// checkGolden judges one recorded measurement again.
func checkGolden(t *testing.T, name string) {
	m := &pb.Measurement{}
	readJSON(t, name, m)
	if l := Tally(m.GetAsks()); len(m.GetResults()) != int(l.GetAnswered()) {
		t.Errorf("%d results of %d agents that answered", len(m.GetResults()), l.GetAnswered())
	}
	got := Judge(m, m.GetResults())
	got.Judge = "" // a version alone changes nothing
	verdict := strings.TrimSuffix(name, ".gz")
	if *update {
		write(t, verdict, indented(t, got))
	}
	want := &pb.Verdict{}
	readJSON(t, verdict, want)
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Errorf("verdict (-want +got), if it is meant, run with -update and review the diff:\n%s", diff)
	}
	w := &world{m: m, results: m.GetResults()}
	for _, f := range got.GetFindings() {
		checkFinding(t, w, f)
	}
}

// importAll keeps the facts of measurements that were printed as JSON.
func importAll(t *testing.T, dir string) {
	t.Helper()
	names, err := filepath.Glob(dir + "/*.json")
	if err != nil || len(names) == 0 {
		t.Fatalf("%s: %d measurements, %v", dir, len(names), err)
	}
	for _, name := range names {
		m := &pb.Measurement{}
		readJSON(t, name, m)
		m.Verdict = nil
		var out bytes.Buffer
		zip := gzip.NewWriter(&out)
		if _, err := zip.Write(compact(t, m)); err != nil {
			t.Fatal(err)
		}
		if err := zip.Close(); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(golden, filepath.Base(name))+".gz", out.Bytes())
	}
}

func readJSON(t *testing.T, name string, m proto.Message) {
	t.Helper()
	text, err := os.ReadFile(name)
	if err == nil && strings.HasSuffix(name, ".gz") {
		var zip *gzip.Reader
		if zip, err = gzip.NewReader(bytes.NewReader(text)); err == nil {
			text, err = io.ReadAll(zip)
		}
	}
	if err == nil {
		err = protojson.Unmarshal(text, m)
	}
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

func write(t *testing.T, name string, text []byte) {
	t.Helper()
	if err := os.WriteFile(name, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

// compact is m on one line. protojson puts spaces where it pleases.
func compact(t *testing.T, m proto.Message) []byte {
	t.Helper()
	text, err := protojson.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := json.Compact(&out, text); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// indented is m to be read.
func indented(t *testing.T, m proto.Message) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := json.Indent(&out, compact(t, m), "", "  "); err != nil {
		t.Fatal(err)
	}
	return append(out.Bytes(), '\n')
}
