// Asks who it is and puts and gets an object, with the default chain of credentials. What it prints is in ../README.md.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/sts"
)

func main() {
	seconds, err := strconv.Atoi(os.Getenv("PROBE_EVERY"))
	every := time.Duration(seconds) * time.Second
	for repeated := err == nil; ; time.Sleep(every) {
		failed := probe(every)
		if failed != nil {
			fmt.Println("refused:", strings.ReplaceAll(failed.Error(), "\n", " "))
		}
		if !repeated {
			if failed != nil {
				os.Exit(1)
			}
			return
		}
	}
}

func probe(every time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	clients, err := shared(ctx, every)
	if err != nil {
		return err
	}
	identity, err := clients.sts.GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
	if err != nil {
		return err
	}
	bucket, key := os.Getenv("PROBE_BUCKET"), os.Getenv("PROBE_KEY")
	_, err = clients.s3.PutObject(ctx, &s3.PutObjectInput{
		Bucket: &bucket, Key: &key, Body: strings.NewReader("written by " + *identity.Arn),
	})
	if err != nil {
		return err
	}
	object, err := clients.s3.GetObject(ctx, &s3.GetObjectInput{Bucket: &bucket, Key: &key})
	if err != nil {
		return err
	}
	defer object.Body.Close()
	text, err := io.ReadAll(object.Body)
	if err != nil {
		return err
	}
	fmt.Printf("caller: %s\nobject: %s\n", *identity.Arn, text)
	if every > 0 {
		credentials, err := clients.configuration.Credentials.Retrieve(ctx)
		if err != nil {
			return err
		}
		fmt.Printf("key: %s\n", credentials.AccessKeyID)
	}
	return nil
}

type clients struct {
	configuration aws.Config
	sts           *sts.Client
	s3            *s3.Client
}

var made *clients

// The same clients each time, as an application has them, so that they refresh their credentials.
func shared(ctx context.Context, every time.Duration) (*clients, error) {
	if made == nil {
		configuration, err := config.LoadDefaultConfig(ctx, config.WithCredentialsCacheOptions(func(options *aws.CredentialsCacheOptions) {
			if every > 0 {
				// They last an hour. A round after they came they are thought to be old: what happens to every application
				// once an hour happens now.
				options.ExpiryWindow = time.Hour - every
			}
		}))
		if err != nil {
			return nil, err
		}
		made = &clients{
			configuration: configuration, sts: sts.NewFromConfig(configuration), s3: s3.NewFromConfig(configuration),
		}
	}
	return made, nil
}
