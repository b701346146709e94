"""Reading FlintstonesSV, making stories of it, and drawing our own show in its layout."""
