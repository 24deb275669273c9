# What the allocator's module does not take.
mock_provider "aws" {
  source = "./tests/mocks"
}

run "bad_names_are_refused" {
  command = plan
  variables {
    name     = "Lab_Link"
    hostname = "https://lablink.example.org"
  }
  expect_failures = [var.name, var.hostname]
}

run "ssh_from_everywhere_is_refused" {
  command = plan
  variables {
    admin_cidrs = ["0.0.0.0/0"]
    ssh_key     = "ada"
  }
  expect_failures = [var.admin_cidrs]
}

run "addresses_of_another_kind_are_refused" {
  command = plan
  variables {
    people_cidrs           = ["192.0.2.7/24"]
    admin_cidrs            = ["2001:db8::/32"]
    ssh_key                = "ada"
    certificate_secret_arn = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:web"
  }
  expect_failures = [var.people_cidrs, var.admin_cidrs]
}

run "ssh_without_a_key_is_refused" {
  command = plan
  variables {
    admin_cidrs = ["192.0.2.7/32"]
  }
  expect_failures = [var.ssh_key]
}

run "lets_encrypt_behind_a_wall_is_refused" {
  command = plan
  variables {
    people_cidrs = ["192.0.2.0/24"]
  }
  expect_failures = [var.certificate_secret_arn]
}

run "odd_values_are_refused" {
  command = plan
  variables {
    cidr           = "everything"
    vms_subnet_ids = []
    ami_id         = "ubuntu"
    instance_type  = "small"
    data_gb        = 1
    bucket         = "My Bucket"
    topic_arn      = "alarms"

    identity_certificate = "AWS"
    public_zone_id       = "example.org"
  }
  expect_failures = [var.cidr, var.vms_subnet_ids, var.ami_id, var.instance_type, var.data_gb, var.bucket, var.topic_arn, var.identity_certificate, var.public_zone_id]
}

run "more_user_data_than_ec2_takes_is_refused" {
  variables {
    settings = [for number in range(0, 1000) : "pool.name=${sha256(tostring(number))}"]
  }
  expect_failures = [aws_instance.this]
}

run "images_without_a_tag_are_refused" {
  command = plan
  variables {
    images = { allocator = "ghcr.io/talmolab/lablink-allocator-aws" }
  }
  expect_failures = [var.images]
}

run "settings_that_are_none_are_refused" {
  command = plan
  variables {
    settings = ["pool.programs"]
  }
  expect_failures = [var.settings]
}

run "ways_to_speak_that_are_none_are_refused" {
  command = plan
  variables {
    transport = "websocket"
  }
  expect_failures = [var.transport]
}

run "a_way_to_speak_that_no_port_follows_is_refused" {
  command = plan
  variables {
    settings = ["transport=hub"]
  }
  expect_failures = [var.settings]
}

run "no_people_are_refused" {
  command = plan
  variables {
    people_cidrs           = []
    certificate_secret_arn = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:web"
  }
  expect_failures = [var.people_cidrs]
}
