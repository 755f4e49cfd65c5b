// Command cri asks a CRI service, as a kubelet does: `cri SOCKET version`, `cri SOCKET pull IMAGE`.
// `cri --version` says which version of the CRI API it was built with.
package main

import (
	"context"
	"fmt"
	"os"
	"runtime/debug"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func main() {
	if len(os.Args) == 2 && os.Args[1] == "--version" {
		fmt.Println(apiVersion())
		return
	}
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: cri SOCKET version | cri SOCKET pull IMAGE")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2], os.Args[3:]); err != nil {
		fmt.Fprintln(os.Stderr, "cri:", err)
		os.Exit(1)
	}
}

func apiVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, module := range info.Deps {
			if module.Path == "k8s.io/cri-api" {
				return module.Path + " " + module.Version
			}
		}
	}
	return "built without modules"
}

func run(socket, verb string, arguments []string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	connection, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer connection.Close()
	switch {
	case verb == "version" && len(arguments) == 0:
		answer, err := cri.NewRuntimeServiceClient(connection).Version(ctx, &cri.VersionRequest{})
		if err == nil {
			fmt.Println(answer.RuntimeName, answer.RuntimeVersion)
		}
		return err
	case verb == "pull" && len(arguments) == 1:
		image := &cri.ImageSpec{Image: arguments[0]}
		images := cri.NewImageServiceClient(connection)
		if _, err := images.PullImage(ctx, &cri.PullImageRequest{Image: image}); err != nil {
			return err
		}
		answer, err := images.ImageStatus(ctx, &cri.ImageStatusRequest{Image: image})
		if err != nil {
			return err
		}
		for _, digest := range answer.GetImage().GetRepoDigests() {
			fmt.Println(digest)
		}
		return nil
	}
	return fmt.Errorf("there is no %q %q", verb, arguments)
}
