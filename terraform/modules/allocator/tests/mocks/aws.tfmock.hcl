# What AWS would answer.
mock_data "aws_region" {
  defaults = { name = "eu-central-1" }
}
mock_data "aws_partition" {
  defaults = { partition = "aws" }
}
mock_data "aws_caller_identity" {
  defaults = { account_id = "123456789012" }
}
mock_resource "aws_ebs_volume" {
  defaults = { id = "vol-0123456789abcdef0" }
}
mock_resource "aws_iam_policy" {
  defaults = { arn = "arn:aws:iam::123456789012:policy/lablink-test-vm" }
}
mock_resource "aws_instance" {
  defaults = { private_ip = "10.42.0.5" }
}
mock_resource "aws_eip" {
  defaults = { public_ip = "198.51.100.7" }
}
