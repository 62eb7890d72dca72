// Package threats has a test for each threat that the network is built against: T1 to T17 of the threat model. Each runs
// the real programs, lets the threat happen, proves that it did, and shows what holds against it.
package threats
