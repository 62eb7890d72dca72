package lab

import (
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// testGrpcurl uses the API with grpcurl alone, which learns it by reflection.
func (w *world) testGrpcurl(t *testing.T) {
	tool := filepath.Join(w.bin, "grpcurl")
	if _, err := exec.LookPath(tool); err != nil {
		if tool, err = exec.LookPath("grpcurl"); err != nil {
			t.Skip("no grpcurl: go build -modfile=tools/go.mod -o bin/grpcurl github.com/fullstorydev/grpcurl/cmd/grpcurl")
		}
	}
	token, err := w.bearer()
	if err != nil {
		t.Fatal(err)
	}
	grpcurl := []string{tool, "-cacert", w.coordinatorFile("ca.pem"), "-H", "authorization: Bearer " + string(token)}
	call := func(args ...string) string {
		t.Helper()
		out, err := w.coordinator.Output(t.Context(), append(slices.Clone(grpcurl), args...)...)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	services := strings.Fields(call(grpcAddr, "list"))
	for _, name := range []string{"elsewhere.v1.MeasurementService", "elsewhere.v1.FleetService", "grpc.health.v1.Health"} {
		if !slices.Contains(services, name) {
			t.Errorf("%s is not in the list: %v", name, services)
		}
	}
	if health := call(grpcAddr, "grpc.health.v1.Health/Check"); !strings.Contains(health, `"SERVING"`) {
		t.Errorf("health: %s", health)
	}
	var created pb.CreateMeasurementResponse
	question := `{"spec": {"tcp": {"host": "healthy-tcp.` + zone + `", "port": 443}}}`
	answer := call("-d", question, grpcAddr, "elsewhere.v1.MeasurementService/CreateMeasurement")
	if err := protojson.Unmarshal([]byte(answer), &created); err != nil {
		t.Fatal(err)
	}
	id := `{"id": "` + created.GetMeasurement().GetId() + `"}`
	news := call("-d", id, grpcAddr, "elsewhere.v1.MeasurementService/WatchMeasurement")
	if !strings.Contains(news, `"STATE_FINISHED"`) || !strings.Contains(news, `"OUTCOME_OK"`) {
		t.Errorf("the watch ended without a finished, healthy measurement: %s", news)
	}
	out, err := w.coordinator.Output(t.Context(), append(slices.Clone(grpcurl), "-d",
		`{"spec": {"tcp": {"host": "a.`+zone+`", "port": 99999}}}`, grpcAddr, "elsewhere.v1.MeasurementService/CreateMeasurement")...)
	if err == nil || !strings.Contains(out, "InvalidArgument") || !strings.Contains(out, "spec.tcp.port") {
		t.Errorf("port 99999 gave %v: %s", err, out)
	}
}
