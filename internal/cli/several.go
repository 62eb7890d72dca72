package cli

import (
	"fmt"
	"net"
	"strings"

	"google.golang.org/grpc"
	_ "google.golang.org/grpc/health" // has connections ask whether a coordinator is ready
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
)

const (
	// maxCoordinators bounds those that may be named.
	maxCoordinators = 16
	// anyReady has each call go to a coordinator that says that it is ready; the calls of one follow each other around.
	anyReady = `"loadBalancingConfig":[{"round_robin":{}}],"healthCheckConfig":{"serviceName":""}`
	// repeats makes calls again that a coordinator may have taken and did not answer, of another one if there is: to
	// open a measurement under an id, or to read, twice is as good as once.
	repeats = `"methodConfig":[{"name":[{"service":"elsewhere.v1.MeasurementService"},{"service":"elsewhere.v1.FleetService","method":"ListAgents"}],"retryPolicy":
		{"maxAttempts":3,"initialBackoff":"0.1s","maxBackoff":"1s","backoffMultiplier":4,"retryableStatusCodes":["UNAVAILABLE"]}}]`
)

// addresses are the coordinators that are named.
func (e Endpoint) addresses() []string { return strings.Split(e.Address, ",") }

// target is what is dialed: one coordinator, or any of several.
func (e Endpoint) target() (string, []grpc.DialOption) {
	all := e.addresses()
	if len(all) == 1 {
		return e.Address, []grpc.DialOption{grpc.WithDefaultServiceConfig("{" + repeats + "}")}
	}
	several := manual.NewBuilderWithScheme("coordinators")
	var state resolver.State
	for _, a := range all {
		host, _, _ := net.SplitHostPort(a) // checkAddress has looked at it
		state.Addresses = append(state.Addresses, resolver.Address{Addr: a, ServerName: host})
	}
	several.InitialState(state)
	config := anyReady + "," + repeats
	if e.Unready {
		config = repeats
	}
	return "coordinators:///all", []grpc.DialOption{grpc.WithResolvers(several), grpc.WithDefaultServiceConfig("{" + config + "}")}
}

// checkAddresses checks the coordinators that are named.
func checkAddresses(s string) error {
	all := strings.Split(s, ",")
	if len(all) > maxCoordinators {
		return fmt.Errorf("%d coordinators are named; at most %d", len(all), maxCoordinators)
	}
	for _, a := range all {
		if err := checkAddress(a); err != nil {
			return err
		}
	}
	return nil
}
